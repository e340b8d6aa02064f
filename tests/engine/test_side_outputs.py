"""Only a checkpoint that cannot be written ends a training; what else cannot be written is said once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clients import recorder
from clients.toy_run import TOY, lines, run
from clients.warm import Warm

from trainkit import NonFiniteError, State
from trainkit.checkpoint.file import Prepared
from trainkit.console import Console
from trainkit.engine import run_folder
from trainkit.engine.every_run import progress_chart
from trainkit.engine.start import ExitCode, start
from trainkit.errors import CheckpointError, PartError
from trainkit.recipe.resolve import resolve_text

ROOT = Path(__file__).parents[2]
FAILING = TOY + '\n[loggers.broken]\nuse = "clients.failing:Failing"\n'


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def log_of(state: State) -> str:
    return re.sub(r"^\S+ \S+Z  ", "", (state.folder / "log.txt").read_text(), flags=re.M)  # without the clock


def raising(error: Exception) -> None:
    raise error


def test_a_logger_that_fails_at_every_step_is_named_once_and_the_training_is_the_same() -> None:
    whole, ending = run(), run(text=FAILING)
    assert ending.code is ExitCode.FINISHED
    for name, tensor in whole.run.state.model.state_dict().items():
        assert torch.equal(ending.run.state.model.state_dict()[name], tensor)
    said = [line for line in log_of(ending.run.state).splitlines() if line.startswith("warning: ")]
    steps = ending.run.state.step
    where = "warning: loggers.broken, in on_step_end: "
    assert said == [
        f"{where}OSError: no space left on the logger's disk; the run goes on without it",
        f"{where}failed {steps} times in all; what it writes is not complete",
    ]
    assert log_of(ending.run.state).count("Traceback") == 1


def test_the_parts_after_one_that_fails_are_called_all_the_same() -> None:
    ending = run(text=FAILING + '\n[loggers.second]\nuse = "clients.failing:Failing"\n')
    steps = ending.run.state.step
    assert ending.run.state.failures == {
        "loggers.broken, in on_step_end": steps,
        "loggers.second, in on_step_end": steps,
    }


def test_pictures_and_the_chart_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder.ACTIONS["picture"] = lambda state: raising(ValueError("nothing to see"))
    monkeypatch.setattr(progress_chart, "draw", lambda *_: raising(OSError("disk full")))
    ending = run()
    assert ending.code is ExitCode.FINISHED
    assert "hooks.recorder, in on_picture: ValueError: nothing to see" in log_of(ending.run.state)
    assert "progress_chart, in on_epoch_end: OSError: disk full" in log_of(ending.run.state)


def test_an_old_checkpoint_that_cannot_be_removed_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remove = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".safetensors":
            raise PermissionError("not yours")
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    ending = run("run.epochs=3", "checkpoint.keep_last=1", "checkpoint.best=0")
    assert ending.code is ExitCode.FINISHED
    assert log_of(ending.run.state).count("an old checkpoint cannot be removed (not yours)") == 1


def test_a_checkpoint_that_cannot_be_written_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prepared, "write", lambda *_: raising(CheckpointError("disk full")))
    with pytest.raises(CheckpointError, match="disk full"):
        run()


def test_what_ended_the_run_is_reported_even_if_its_end_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prepared, "write", lambda *_: raising(CheckpointError("no space left")))
    monkeypatch.setattr(run_folder, "note_end", lambda *_, **__: raising(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match="no space left"):
        run()
    (log,) = Path("runs/toy").glob("*/log.txt")
    assert "how the run ended cannot be recorded" in log.read_text()


def test_a_part_that_leaves_the_program_at_the_runs_end_is_a_failure() -> None:
    recorder.ACTIONS["run_end"] = lambda state: sys.exit(0)
    with pytest.raises(PartError, match=r"hooks.recorder, in on_run_end, called sys.exit\(0\)"):
        run()
    (folder,) = Path("runs/toy").iterdir()
    assert not run_folder.is_finished(folder)


def test_a_part_that_leaves_the_program_while_it_is_built_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder.Recorder, "build", lambda *_: sys.exit(0))
    with pytest.raises(PartError, match=r"hooks.recorder, in build, called sys.exit\(0\)"):
        run()
    assert not [*Path("runs/toy").iterdir()]


def test_what_a_signal_says_while_a_message_is_being_written_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console()
    console.log_to(tmp_path / "log.txt")
    reentrant = RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")  # as CPython says it
    with monkeypatch.context() as patched:
        patched.setattr(sys.stdout, "write", lambda _: raising(reentrant))
        console.say("SIGTERM: finishing this step, then saving")
    assert "SIGTERM" in (tmp_path / "log.txt").read_text()
    assert not console.quiet


def test_a_loss_that_is_not_finite_ends_the_run_whoever_reads_it_first() -> None:
    recorder.ACTIONS["picture"] = lambda state: raising(NonFiniteError("nan"))
    with pytest.raises(NonFiniteError):
        run()


def test_a_log_that_cannot_be_written_is_said_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def fill(state: State) -> None:
        (state.folder / "log.txt").unlink()
        (state.folder / "log.txt").symlink_to("/dev/full")

    recorder.ACTIONS["run_start"] = fill
    ending = start(resolve_text(TOY, Path.cwd()), Console())
    assert ending.code is ExitCode.FINISHED
    assert capsys.readouterr().out.count("log.txt cannot be written") == 1


def its_log_notes_that_nothing_can_be_printed() -> None:
    (folder,) = Path("runs/toy").iterdir()
    assert "standard output cannot be written" in (folder / "log.txt").read_text()
    assert len(lines(folder)) == 2


@pytest.mark.slow
def test_a_full_standard_output_is_noted_in_the_log(warm: Warm) -> None:
    Path("toy.toml").write_text(TOY)
    onto_a_full_disk = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); from trainkit.cli import main; main()"
    ended = warm.start("-c", onto_a_full_disk, "run", "toy.toml", folder=Path.cwd(), apart=True)
    assert (ended.wait(), ended.stderr) == (0, "")
    its_log_notes_that_nothing_can_be_printed()


@pytest.mark.slow
def test_a_closed_standard_output_is_noted_in_the_log() -> None:
    Path("toy.toml").write_text(TOY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = f'"{sys.executable}" -m trainkit run toy.toml >&-'  # as Python starts, it finds no standard output
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    its_log_notes_that_nothing_can_be_printed()
