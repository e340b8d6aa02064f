"""A signal at any time: while a run starts, trains and ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder, toy
from clients.toy_run import TOY, lines, resume, run

from trainkit import RecipeError, State
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine import signals
from trainkit.engine import start as engine_start
from trainkit.engine.queue import run_all
from trainkit.engine.start import ExitCode
from trainkit.processes.place import refuse_several_processes
from trainkit.recipe.resolve import resolve_all, resolve_text

WATCHED = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_while_a_run_starts_leaves_nothing_behind(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Line, "build", lambda *_: signal.raise_signal(number))
    with pytest.raises(signals.StoppedEarly, match=number.name):
        run()
    assert not list(Path("runs").rglob("*.toml"))


@pytest.mark.parametrize("event", ["run_start", "group_start", "epoch_start"])
def test_a_signal_before_the_first_step_saves_what_can_be_resumed_to_the_same_bits(event: str) -> None:
    whole = run().run.state
    recorder.ACTIONS[event] = lambda state: signal.raise_signal(signal.SIGTERM)
    stopped = run()
    assert stopped.code is ExitCode.STOPPED
    assert stopped.newest is not None
    recorder.ACTIONS.clear()
    resumed = resume(stopped.run.state.folder).run.state
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
    one, other = lines(whole.folder), lines(resumed.folder)
    assert [{**line, "seconds": 0} for line in one] == [{**line, "seconds": 0} for line in other]


def test_a_signal_at_the_end_waits_for_the_results() -> None:
    recorder.ACTIONS["run_end"] = lambda state: signal.raise_signal(signal.SIGTERM)
    ending = run()
    assert ending.code is ExitCode.FINISHED
    assert ending.signal == "SIGTERM"
    assert "SIGTERM: writing the results" in (ending.run.state.folder / "log.txt").read_text()


def test_a_signal_between_the_end_and_the_report_waits_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    code, reported = engine_start._exit_code, []

    def signalled(state: State) -> ExitCode:
        signal.raise_signal(signal.SIGTERM)
        return code(state)

    monkeypatch.setattr(engine_start, "_exit_code", signalled)
    ending = engine_start.start(
        resolve_text(TOY, Path.cwd()), Console(quiet=True), report=lambda outcome, _: reported.append(outcome.code)
    )
    assert (ending.code, ending.signal, reported) == (ExitCode.FINISHED, "SIGTERM", [ExitCode.FINISHED])


def test_a_second_signal_at_the_end_stops_at_once() -> None:
    def twice(state: State) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    recorder.ACTIONS["run_end"] = twice
    with pytest.raises(signals.StoppedAtOnce):
        run()


def test_a_signal_between_two_recipes_keeps_the_next_one_from_starting(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Path(f"{name}.toml").write_text(TOY.replace('name = "toy"\n', ""))

    def interrupted(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        report(*arguments)  # type: ignore[arg-type]

    resolved = resolve_all(["a.toml", "b.toml"])
    code = run_all(resolved, Console(), continue_unfinished=False, report=interrupted)
    assert code is ExitCode.STOPPED
    assert [path.name for path in Path("runs").iterdir()] == ["a"]
    assert capsys.readouterr().out.splitlines()[-1].split() == ["b", "-", "-", "not", "started"]


def test_a_signal_that_was_blocked_is_acted_on_as_soon_as_it_is_handled() -> None:
    heard: list[str] = []
    with signals.blocked():
        signal.raise_signal(signal.SIGUSR1)
        with signals.handled(heard.append):
            assert heard == ["SIGUSR1"]
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_signal_whose_exception_an_import_swallows_stops_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    build = toy.Line.build

    def careless(*given: Any) -> Any:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        return build(*given)

    with monkeypatch.context() as patch:  # `undo` would also leave the folder of the test
        patch.setattr(toy.Line, "build", careless)
        stopped = run()
    assert stopped.code is ExitCode.STOPPED
    assert stopped.run.state.step == 1
    assert run().code is ExitCode.FINISHED  # it is not acted on twice


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        recorder.ACTIONS["step_end"] = lambda state: signal.raise_signal(signal.SIGHUP)
        assert run().code is ExitCode.FINISHED
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "2"}, {"SLURM_NTASKS": "4"}, {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}],
)
def test_one_of_several_processes_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=f"in {[*environment.values()][-1]} processes"):
        refuse_several_processes(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "5", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},
    ],
)
def test_the_only_process_of_a_job_is_not_refused(environment: dict[str, str]) -> None:
    refuse_several_processes(environment)
