"""Kills a run with -9 at random moments, while its checkpoints are being written in the background.

    python tests/kill_sweep.py [--kills 50] [--seed 0]

The disk is made slow, and every second kill waits until a checkpoint is being written. Nothing that was written before
the kill may be lost or damaged, and what a resume makes of it is compared with a run that was never killed: states to
the bit, metrics, points in TensorBoard, results. Every second resume is killed, too. The suite kills a few runs
(tests/engine/test_saving_in_background.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))

from clients.crash_points import outcome, resume_toy, run, runs, what_differs

from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.file import Prepared
from trainkit.engine.every_run import progress_chart, saving
from trainkit.files.writing import is_unfinished

WRITTEN = "written.txt"
"""The file beside the runs that says which checkpoints have been written."""

_SECONDS_PER_PIECE = 0.002


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """Write all checkpoints in the background, on a slow disk, and note down each one that is written."""
    pieces, write = checkpoint._pieces, Prepared.write

    def slow(data: memoryview) -> Iterator[memoryview]:
        for piece in pieces(data):
            time.sleep(_SECONDS_PER_PIECE)
            yield piece

    def noted(prepared: Prepared) -> None:
        write(prepared)
        descriptor = os.open(WRITTEN, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{prepared.path}\n".encode())
        os.close(descriptor)

    with (
        patch.object(saving, "COPIED_FROM_BYTES", 0),
        patch.object(checkpoint, "_pieces", slow),
        patch.object(Prepared, "write", noted),
        patch.object(progress_chart, "draw", lambda state, curves: None),
    ):
        yield


def unfinished(folder: Path) -> set[Path]:
    """Return the checkpoints of the runs in a folder that were begun and not finished."""
    return set(filter(is_unfinished, folder.glob("runs/*/*/checkpoints/*")))


def killed(folder: Path, do: Callable[[], Any], seconds: float | None, writes: bool = False) -> bool:
    """Call a function in a forked process in a folder, and kill it after some time; return whether it ended itself.

    Args:
        folder: The folder.
        do: The function.
        seconds: The time; None: it is not killed.
        writes: Whether to wait longer, until it writes a checkpoint.
    """
    before = unfinished(folder)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            with in_background():
                do()
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + (600.0 if seconds is None else seconds)
    while time.monotonic() < until or (writes and unfinished(folder) <= before):
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def what_is_lost(folder: Path) -> Iterator[str]:
    """Yield, in words, what is damaged or missing of the checkpoints that had been written when a run was killed."""
    written = [Path(line) for line in (folder / WRITTEN).read_text().splitlines()] if runs(folder) else []
    kept = sorted(path for run in runs(folder) for path in run.glob("checkpoints/*.safetensors"))
    for path in kept:
        try:
            checkpoint.read(path)
        except Exception as error:
            yield f"{path.name}: {error}"
    steps = [checkpoint.read_header(path)["step"] for path in kept]
    if written and written[-1] not in kept:
        yield f"{written[-1].name} had been written, and is not there (there are steps {steps})"


def sweep(kills: int, seed: int, folder: Path, say: Callable[[str], None]) -> tuple[int, int]:
    """Kill runs; return after how many of them something was lost or different, and how many kills cut a save short.

    Args:
        kills: Number of kills.
        seed: Decides when.
        folder: An empty folder to work in.
        say: Called with each difference.
    """
    by, here = random.Random(seed), folder / "here"  # a recipe names its folder, so all happens in one place
    bad = cut_short = 0
    here.mkdir(parents=True)
    began = time.monotonic()
    assert killed(here, run, None), "the straight run did not end"
    seconds = time.monotonic() - began
    expected = outcome(runs(here)[0])
    shutil.rmtree(here)
    done = 0
    while done < kills:
        here.mkdir()
        (here / WRITTEN).touch()
        found, do = [], run
        for left in range(1 + done % 2, -1, -1):
            before = unfinished(here)
            after = by.uniform(0.1, 1.0) * seconds if left and done < kills else None
            ended = killed(here, do, after, writes=after is not None and done % 2 == 0)
            found += what_is_lost(here)
            done += not ended
            cut_short += bool(unfinished(here) - before)
            if ended:
                break
            do = resume_toy if any(each.glob("checkpoints/*.safetensors") for each in runs(here)) else run
        found += what_differs(expected, outcome(runs(here)[0]))
        if found:
            bad += 1
            say(f"after kill {done}: {', '.join(found[:6])}")
            here.rename(folder / f"killed-{done:04d}")
        else:
            shutil.rmtree(here)
    return bad, cut_short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as warm, contextlib.chdir(warm):
        run()  # imports what runs import late, so that the forked processes need not
        outcome(runs(Path(warm))[0])
    with tempfile.TemporaryDirectory() as folder:
        bad, cut_short = sweep(given.kills, given.seed, Path(folder), print)
    print(f"{given.kills} kills, {cut_short} of them while a checkpoint was being written; {bad} runs different")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
