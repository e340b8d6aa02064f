"""Kills a run before one of its file operations, as a power failure would, and compares what a resume makes of it.

A process is forked for each run, so that torch is imported once. In it, every operation that changes a file below the
working directory is counted (opening for writing, truncating, renaming, removing, making a folder, fsync). Before the
chosen one, the process ends without any clean-up, and each file that was written without fsync is cut to a length
between what was on the disk for certain and what was written.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from same import differences

from trainkit import Context, Hook, State, component, written_whole
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.console import Console
from trainkit.engine import start
from trainkit.engine.identity import newest_first
from trainkit.engine.queue import run_all
from trainkit.engine.resume import resume
from trainkit.recipe.resolve import resolve_text

KILLED = 99
"""Exit code of a process that was killed here."""

RECIPE = """
trainkit = 1
[run]
name = "toy"
epochs = 3
device = "cpu"
[data]
use = "clients.toy:Line"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
[validation]
every_steps = 3
[pictures]
every_epochs = 2
[checkpoint]
every_steps = 3
keep_last = 2
keep_every = 1
best = 1
[groups.first]
parameters = ["0.*"]
stop_epoch = 2
[groups.second]
parameters = ["2.*"]
start_epoch = 1
[hooks.count]
use = "clients.toy:Count"
[hooks.result]
use = "clients.crash_points:WriteResult"
[loggers.tensorboard]
use = "tensorboard"
every_steps = 1
"""


_INTERRUPT_AFTER_STEP = -1


@component
class WriteResult(Hook):
    """Shows a picture, and writes a file at the end of the run, as models of real data do."""

    def build(self, context: Context) -> object:
        return LiveWriteResult()


class LiveWriteResult:
    def on_step_end(self, state: State) -> None:
        if state.step == _INTERRUPT_AFTER_STEP:
            state.interrupt("to be resumed")

    def on_picture(self, state: State) -> None:
        import numpy as np

        state.picture("dot", np.full((2, 2, 3), state.epoch, np.uint8))

    def on_run_end(self, state: State) -> None:
        if not (state.failed or state.interrupted):
            with written_whole(state.folder / "result.txt") as new:
                new.write_text(repr([value.tolist() for value in state.model.state_dict().values()]))


class FileOperations:
    """Counts the operations that change a file below the working directory, and ends the process before one of them.

    Args:
        kill_before: Number of the operation, from 0; None: none.
    """

    def __init__(self, kill_before: int | None) -> None:
        self.seen: list[str] = []
        self._kill_before = kill_before
        self._here = os.getcwd()
        self._on_disk: dict[str, int] = {}  # file that was written without fsync -> length that is certain
        self._fsync = os.fsync
        os.fsync = self._count_fsync
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = args
            if isinstance(path, int) or not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if (place := self._inside(path)) is not None:
                self._count("open", place)
                whole = (flags & os.O_TRUNC) or not os.path.exists(place)
                self._on_disk.setdefault(place, 0 if whole else os.path.getsize(place))
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            if isinstance(args[0], int):
                place = self._inside(os.readlink(f"/proc/self/fd/{args[0]}"))
            else:
                place = self._inside(args[0])
            if place is None:
                return
            self._count(event.removeprefix("os."), place)
            if event == "os.rename":
                target = os.path.abspath(os.fsdecode(args[1]))
                for path in list(self._on_disk):
                    if path == place or path.startswith(place + "/"):
                        self._on_disk[target + path[len(place) :]] = self._on_disk.pop(path)
            elif event == "os.remove":
                self._on_disk.pop(place, None)

    def _count_fsync(self, descriptor: int) -> None:
        place = self._inside(os.readlink(f"/proc/self/fd/{descriptor}"))
        if place is not None:
            self._count("fsync", place)
            self._on_disk.pop(place, None)
        self._fsync(descriptor)

    def _inside(self, path: Any) -> str | None:
        place = os.path.abspath(os.fsdecode(path))
        return place if place.startswith(self._here + "/") and not place.endswith(".lock") else None

    def _count(self, what: str, place: str) -> None:
        if len(self.seen) == self._kill_before:
            self._kill_before = None
            by = random.Random(len(self.seen))
            for path, certain in list(self._on_disk.items()):
                with contextlib.suppress(FileNotFoundError):  # another thread goes on, and may rename it meanwhile
                    if os.path.isfile(path) and (size := os.path.getsize(path)) > certain:
                        os.truncate(path, by.randint(certain, size))
            os._exit(KILLED)
        self.seen.append(f"{what} {os.path.relpath(place, self._here)}")


def in_child(folder: Path, do: Callable[[], Any], kill_before: int | None = None) -> tuple[int, list[str]]:
    """Call a function in a forked process whose working directory is ``folder``.

    Returns:
        The exit code, and the file operations that happened (none if it was killed).
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _call(folder, do, kill_before, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else []


def _call(folder: Path, do: Callable[[], Any], kill_before: int | None, writing: int) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        operations = FileOperations(kill_before)
        do()
        with open(writing, "w", encoding="utf-8") as pipe:
            json.dump(operations.seen, pipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(*, unfinished: bool = True) -> None:
    """Run the recipe as ``trainkit run --continue`` does."""
    torch.set_num_threads(1)
    run_all([resolve_text(RECIPE, Path.cwd())], Console(quiet=True), continue_unfinished=unfinished, report=_silent)


def resume_toy(**options: Any) -> None:
    """Resume the run as ``trainkit resume toy`` does."""
    resume(Path("toy"), Console(quiet=True), allow_code=True, **options)


def run_interrupted() -> None:
    """Run the recipe until it is interrupted inside its second epoch."""
    global _INTERRUPT_AFTER_STEP
    _INTERRUPT_AFTER_STEP = 7
    run()


def run_without_end() -> None:
    """Run the recipe until its last checkpoint is written, and end the process."""
    with patch.object(start, "_end", lambda *_: os._exit(0)):
        run()


def resume_from_epoch_1() -> None:
    """Resume the run from the checkpoint after its first epoch, as ``trainkit resume toy --epoch 1`` does."""
    resume_toy(epoch=1)


def runs(folder: Path) -> list[Path]:
    """Return the run folders in a working directory, the newest first."""
    return newest_first((folder / "runs" / "toy").glob("*"))


def _silent(*_: object) -> None:
    pass


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that a run has left in its folder, as far as it must not depend on how often it was killed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    newest, content = CheckpointFolder(folder / "checkpoints").newest_good(print)
    for key in ("run", "conditions"):
        content.pop(key)
    points = {}
    for writer in sorted((folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(writer), {"scalars": 0, "images": 0})
        events.Reload()
        tags = events.Tags()
        points[writer.name] = {
            tag: [(e.step, 0.0 if tag.startswith("time/") else e.value) for e in events.Scalars(tag)]
            for tag in tags["scalars"]
        }
        points[f"{writer.name}, images"] = {tag: [e.step for e in events.Images(tag)] for tag in tags["images"]}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    starts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["starts"]
    return {
        "newest": newest.name,
        "checkpoint": content,
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "metrics": [{**line, "seconds": 0} if "seconds" in line else line for line in lines],
        "points": points,
        "result": (folder / "result.txt").read_text(encoding="utf-8"),
        "finished": starts[-1]["finished"],
        "ended": starts[-1]["ended"],
        "figures": {path.name: path.read_bytes() for path in sorted((folder / "figures").iterdir())},
        "files": sorted(path.name for path in folder.iterdir()),
        "above": sorted(path.name for path in folder.parent.iterdir() if path != folder),
    }


def what_differs(straight: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what of two outcomes is not the same, to the bit."""
    return [each for key in straight for each in differences(straight[key], other[key], key)]
