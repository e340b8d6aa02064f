"""A large checkpoint is written while the training goes on: what is in it, and what happens when something fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clients import recorder
from clients.toy_run import resume, run
from same import differences, trained

from trainkit import CheckpointError, PartError, State
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint import in_background
from trainkit.checkpoint.file import Prepared
from trainkit.checkpoint.in_background import WriterInBackground
from trainkit.engine.every_run import saving

SWEEP = Path(__file__).parents[1] / "kill_sweep.py"
EPOCHS = ("run.epochs=4", "checkpoint.keep_every=1")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "COPIED_FROM_BYTES", 0)


class Disk:
    """Writes a checkpoint when it is let, and remembers what happened in which thread.

    Args:
        monkeypatch: Undoes it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.begun = threading.Event()
        self.threads: list[str] = []
        write = Prepared.write

        def when_let(prepared: Prepared) -> None:
            self.threads.append(threading.current_thread().name)
            self.begun.set()
            if threading.current_thread().name == "checkpoint":
                assert self.free.wait(30)
            write(prepared)

        monkeypatch.setattr(Prepared, "write", when_let)


def contents(folder: Path) -> dict[str, dict[str, object]]:
    return {path.name: trained(checkpoint.read(path)) for path in sorted(folder.glob("checkpoints/*"))}


@pytest.mark.usefixtures("_all_are_large")
def test_the_training_goes_on_and_what_is_written_is_what_was_when_the_copy_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = contents(run(*EPOCHS, "checkpoint.in_background=false").run.state.folder)
    disk = Disk(monkeypatch)
    seen: list[list[str]] = []

    def at_step(state: State) -> None:
        if state.epoch == 1 and state.steps_in_epoch == state.steps_per_epoch:  # all steps of the second epoch are made
            assert disk.begun.wait(30)
            seen.append(sorted(path.name for path in state.folder.glob("checkpoints/*.safetensors")))
            disk.free.set()

    recorder.ACTIONS["step_end"] = at_step
    found = contents(run(*EPOCHS).run.state.folder)
    assert seen == [[]]  # the checkpoint of the first epoch was not on the disk yet
    assert disk.threads == ["checkpoint"] * 3 + ["MainThread"]  # the last one is waited for
    assert list(found) == list(expected) == [f"epoch-{number:04d}.safetensors" for number in (1, 2, 3, 4)]
    assert [each for name in expected for each in differences(expected[name], found[name], name)] == []


@pytest.mark.usefixtures("_all_are_large")
def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Prepared.write

    def fail(prepared: Prepared) -> None:
        if prepared.path.stem == "epoch-0002":
            raise CheckpointError(f"{prepared.path} cannot be written (No space left on device)")
        write(prepared)

    monkeypatch.setattr(Prepared, "write", fail)
    with pytest.raises((CheckpointError, PartError), match=r"epoch-0002\.safetensors cannot be written \(No space"):
        run(*EPOCHS)
    (folder,) = Path("runs/toy").absolute().iterdir()
    assert list(contents(folder)) == ["epoch-0001.safetensors"]
    assert "failed" in (folder / "environment.json").read_text()
    monkeypatch.setattr(Prepared, "write", write)
    assert resume(folder).run.state.epoch == 4


@pytest.mark.usefixtures("_all_are_large")
def test_a_run_that_fails_names_the_checkpoint_that_was_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)

    def fail(state: State) -> None:
        if state.epoch == 1:
            assert disk.begun.wait(30)
            threading.Timer(0.05, disk.free.set).start()
            raise MemoryError("can't allocate memory")

    recorder.ACTIONS["step_start"] = fail
    with pytest.raises(Exception, match=r"last good checkpoint: .*epoch-0001\.safetensors"):
        run(*EPOCHS)


def test_small_checkpoints_and_those_without_room_for_a_copy_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    run(*EPOCHS)
    monkeypatch.setattr(saving, "COPIED_FROM_BYTES", 0)
    monkeypatch.setattr(in_background, "free_host_memory", lambda: 1000)
    caplog.set_level("INFO", logger="trainkit")
    run(*EPOCHS)
    assert disk.threads == ["MainThread"] * 8
    assert caplog.text.count("no memory for another copy") == 1


@pytest.mark.usefixtures("_all_are_large")
def test_a_time_limit_leaves_time_for_a_checkpoint_that_is_being_written_and_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds, begun = [], []

    def slow_write(prepared: Prepared) -> None:
        begun.append(threading.current_thread().name)
        time.sleep(0.2)
        write(prepared)

    write = Prepared.write
    monkeypatch.setattr(Prepared, "write", slow_write)
    recorder.ACTIONS["epoch_start"] = lambda state: seconds.append(state.seconds_in_background)
    run(*EPOCHS, "run.time_limit=1h")
    assert begun == ["MainThread", "checkpoint", "checkpoint", "MainThread"]  # how long the first one takes is measured
    assert seconds[:2] == [0.0, 0.0]
    assert min(seconds[2:]) > 0.2


def test_a_writer_writes_one_at_a_time_and_raises_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    free, done = threading.Event(), list[str]()

    def write(prepared: Prepared) -> None:
        done.append(prepared.path.name)
        if prepared.path.name == "second":
            raise CheckpointError("the disk is full")
        assert free.wait(30)

    monkeypatch.setattr(Prepared, "write", write)

    def then(word: str) -> Callable[[Prepared], None]:
        return lambda copy: (copy.write(), done.append(word))[1]

    writer, weights = WriterInBackground(), torch.arange(6.0)
    first, second = (checkpoint.prepare(Path(name), {"weights": weights}) for name in ("first", "second"))
    writer.begin(first, then("then"))
    assert "then" not in done
    threading.Timer(0.02, free.set).start()
    writer.begin(second, then("never"))
    assert done[:2] == ["first", "then"]
    writer.wait()
    assert done == ["first", "then", "second"]
    with pytest.raises(CheckpointError, match="the disk is full"):
        writer.raise_error()
    writer.finish()


def test_the_memory_of_a_copy_is_used_again_where_it_fits() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.zeros(2, dtype=torch.complex64)}
    first = checkpoint.prepare(Path("x"), weights).copied()
    places = [each.data_ptr() for each in first.tensors]
    weights["a"] += 1
    again = checkpoint.prepare(Path("x"), weights).copied(first.tensors)
    assert [each.data_ptr() for each in again.tensors] == places
    assert torch.equal(again.tensors[0], torch.arange(1.0, 7.0).reshape(2, 3).T)
    other = checkpoint.prepare(Path("x"), {"a": torch.ones(5), "b": weights["b"]}).copied(again.tensors)
    assert [tuple(each.shape) for each in other.tensors] == [(5,), (2, 2)]
    assert other.tensors[1].data_ptr() == places[1]


@pytest.mark.slow  # some ten runs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process that has imported torch")
def test_nothing_that_was_written_is_lost_when_a_run_is_killed_at_any_moment(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(SWEEP), "--kills", "6", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (cut_short,) = re.findall(
        r"6 kills, (\d+) of them while a checkpoint was being written; 0 runs different", done.stdout
    )
    assert int(cut_short) > 0
