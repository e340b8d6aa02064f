"""Several recipes in one call; and runs that are told to end in time."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import PARTS, RECORDER
from clients.warm import Warm, WarmProcess

from trainkit import State
from trainkit.checkpoint import file as checkpoint
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine.every_run.time_limit import process_seconds
from trainkit.engine.queue import run_all
from trainkit.engine.start import ExitCode
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_all

TOY = f"""
trainkit = 1
[run]
epochs = 3
device = "cpu"
{PARTS}{RECORDER}"""


@pytest.fixture(autouse=True)
def _three_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        Path(f"{name}.toml").write_text(TOY)


def run(*names: str, unfinished: bool = False) -> ExitCode:
    resolved = resolve_all([f"{name}.toml" for name in names])
    return run_all(resolved, Console(), continue_unfinished=unfinished, report=report)


@pytest.fixture
def started(warm: Warm) -> Iterator[Callable[..., WarmProcess]]:
    """Starts a run in a process of its own, which does not outlive the test."""
    with contextlib.ExitStack() as processes:

        def start(seconds: float = 0.05) -> WarmProcess:
            Path("slow.toml").write_text(SLOW + f"seconds = {seconds}\n")
            process = warm.start("run", "slow.toml", folder=Path.cwd(), apart=True)
            processes.callback(process.send_signal, signal.SIGKILL)
            until = time.monotonic() + 60
            while not Path("began").is_file():
                assert process.poll() is None, process.stderr
                assert time.monotonic() < until
                time.sleep(0.05)
            return process

        yield start


def epochs_run() -> int:
    return sum(event == "epoch_end" for event, _, _ in recorder.SEEN)


@pytest.mark.slow
def test_recipes_run_one_after_the_other_and_a_table_sums_them_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a", "b", "c") is ExitCode.FINISHED
    table = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in table] == ["run", "a", "b", "c"]
    assert all("finished" in line and "runs/" in line for line in table[1:])


def test_one_that_fails_does_not_keep_the_others_from_running(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(state: State) -> None:
        if "/b/" in str(state.folder):
            raise RuntimeError("the third party's bug")

    recorder.ACTIONS["epoch_start"] = fail
    assert run("a", "b", "c") is ExitCode.FAILED
    table = capsys.readouterr().out.rpartition("\n\n")[2]
    assert "failed: hooks.recorder, in on_epoch_start: RuntimeError: the third party's bug" in table
    assert len(list(Path("runs").glob("c/*/checkpoints/epoch-0003.safetensors"))) == 1


def test_continue_skips_what_is_finished_and_goes_on_with_what_is_not() -> None:
    recorder.ACTIONS["step_end"] = lambda state: (
        state.step == 6 and "/b/" in str(state.folder) and state.interrupt("now")
    )
    assert run("a", "b", "c") is ExitCode.STOPPED
    recorder.ACTIONS.clear()
    recorder.SEEN.clear()
    assert run("a", "b", "c", unfinished=True) is ExitCode.FINISHED
    assert epochs_run() == 2 + 3  # what was left of b, and c
    assert [len(list(Path("runs", name).iterdir())) for name in ("a", "b", "c")] == [1, 1, 1]
    recorder.SEEN.clear()
    assert run("a", "b", "c", unfinished=True) is ExitCode.FINISHED
    assert epochs_run() == 0


def test_continue_imports_no_code_that_only_a_run_folder_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    Path("planted.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    recorder.ACTIONS["step_end"] = lambda state: state.step == 6 and state.interrupt("now")
    assert run("a") is ExitCode.STOPPED
    recorder.ACTIONS.clear()
    (file,) = Path("runs/a").glob("*/checkpoints/step-*.safetensors")
    content = checkpoint.read(file)
    content["recipe"] += '\n[hooks.planted]\nuse = "planted:Hook"\n'
    checkpoint.write(file, content)
    with pytest.raises(InvalidRecipe, match='"planted:Hook" is not a registered component, and the recipe given'):
        run("a", unfinished=True)
    assert not Path("executed").exists()


def test_continue_begins_anew_when_the_recipe_is_another_one() -> None:
    run("a")
    Path("a.toml").write_text(TOY.replace("epochs = 3", "epochs = 2"))
    recorder.SEEN.clear()
    run("a", unfinished=True)
    assert epochs_run() == 2
    assert len(list(Path("runs/a").iterdir())) == 2


def test_a_file_that_is_not_there_is_found_before_there_is_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    text = TOY.replace('use = "clients.toy:Line"', 'use = "clients.of_file:LineOfFile"\npath = "none.npy"')
    Path("a.toml").write_text(text)
    with pytest.raises(InvalidRecipe, match=r"a.toml:\d+:\d+: error: data.path: there is no .*none.npy"):
        run("a")
    assert not Path("runs").exists()
    assert run("a", "b") is ExitCode.FAILED
    assert [path.name for path in Path("runs").iterdir()] == ["b"]
    capsys.readouterr()


def test_without_continue_every_run_starts_anew() -> None:
    run("a")
    run("a")
    assert len(list(Path("runs/a").iterdir())) == 2


@pytest.mark.slow
def test_a_run_ends_with_a_checkpoint_before_its_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    limit = int(process_seconds()) + 3
    Path("a.toml").write_text(TOY.replace("epochs = 3", f'epochs = 10000\ntime_limit = "{limit}s"'))
    recorder.ACTIONS["step_end"] = lambda state: time.sleep(0.05)
    assert run("a") is ExitCode.STOPPED
    assert process_seconds() < limit + 3  # its epochs would take 2000 s; on a busy machine, saving takes a while
    (folder,) = Path("runs/a").iterdir()
    last = json.loads((folder / "environment.json").read_text())["starts"][-1]
    assert last["ended"] == f"stopped: time limit {limit}s"
    assert last["finished"] is False
    assert list((folder / "checkpoints").iterdir())
    capsys.readouterr()


SLOW = TOY.replace("epochs = 3", "epochs = 100000").replace("recorder:Recorder", "slow:Slow")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_the_process_with_a_checkpoint_and_the_code_for_it(
    number: signal.Signals, started: Callable[..., WarmProcess]
) -> None:
    process = started()
    process.send_signal(number)
    assert process.wait(60) == 75, process.stderr
    assert f"{number.name}: finishing this step" in process.stdout
    assert list(Path("runs/slow").glob("*/checkpoints/step-*.safetensors"))


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(started: Callable[..., WarmProcess]) -> None:
    process = started(seconds=30)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert "the last checkpoint is complete" in process.stderr
    assert "Traceback" not in process.stderr
