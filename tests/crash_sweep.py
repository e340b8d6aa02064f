"""Kills a run, a resume, a resume from an earlier epoch and the end of a run before each of their file operations.

    python tests/crash_sweep.py [--every N]

After each kill, the run is continued as a user would, once by ``run --continue`` and once by ``resume``; a second kill
at a random operation of the continuation comes in between for every third point. Whatever is left in the run folder is
compared with a run that was never killed: states to the bit, metrics, every point and mark in TensorBoard, results. The
suite tries some of these points (tests/engine/test_crash_points.py).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from clients import crash_points
from clients.crash_points import KILLED, in_child, outcome, resume_toy, run, runs, what_differs

from trainkit import State, written_whole
from trainkit.engine.every_run import progress_chart

SITUATIONS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]] = {
    "a run": (lambda: None, run, run),
    "a resume": (crash_points.run_interrupted, resume_toy, resume_toy),
    "a resume by --continue": (crash_points.run_interrupted, run, run),
    "a resume from an earlier epoch": (run, crash_points.resume_from_epoch_1, resume_toy),
    "the end of a run": (crash_points.run_without_end, resume_toy, resume_toy),
}
"""What is killed -> what happened before, what is killed, and how it is continued."""


def _small_chart(state: State, curves: Any) -> None:
    """Write ``progress.png`` as a chart is written, without drawing it, which takes longer than all else in a run."""
    with written_whole(state.folder / "progress.png") as new:
        new.write_text(f"a chart of {len(curves)} curves")


def sweep(name: str, points: Callable[[int], list[int]], folder: Path, say: Callable[[str], None]) -> int:
    """Kill at the chosen points of a situation; return at how many something was different.

    Args:
        name: The situation.
        points: Number of file operations -> those before which to kill.
        folder: An empty folder to work in.
        say: Called with each difference.
    """
    before, killed, then = SITUATIONS[name]
    base, here = folder / "before", folder / "here"  # a recipe names its folder, so all runs happen in one place
    here.mkdir(parents=True)
    code, _ = in_child(here, before)
    assert code == 0, f"{name}: the preparation failed"
    shutil.copytree(here, base)
    code, operations = in_child(here, killed)
    assert code == 0, f"{name}: the straight run failed"
    expected, num_runs = outcome(runs(here)[0]), len(runs(here))
    here.rename(folder / "straight")
    bad = 0
    for number in points(len(operations)):
        shutil.copytree(base, here)
        code, _ = in_child(here, killed, number)
        # A thread of TensorBoard writes; so a run may come to its end in fewer operations, which then is what it is.
        found = [f"it ended with {code}, not by the kill"] if code not in (KILLED, 0) else []
        if number % 3 == 0:
            in_child(here, then, random.Random(number).randrange(60))
        if len(runs(here)) < num_runs:
            in_child(here, killed)  # it was killed before there was anything to continue: the user asks once more
        code, _ = in_child(here, then)
        if code:
            found.append(f"it cannot be continued: exit code {code}")
        else:
            try:
                found += what_differs(expected, outcome(runs(here)[0]))
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
        if found:
            bad += 1
            say(f"{name}, killed before operation {number} ({operations[number]}): {', '.join(found[:6])}")
            here.rename(folder / f"killed-{number:04d}")
        else:
            shutil.rmtree(here)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every N-th file operation")
    parser.add_argument("--situation", choices=sorted(SITUATIONS), action="append")
    parser.add_argument("--folder", type=Path, default=None, help="keep what was different in this folder")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    progress_chart.draw = _small_chart
    with tempfile.TemporaryDirectory() as warm, contextlib.chdir(warm):
        run()  # imports what runs import late, so that the forked processes need not
        outcome(runs(Path(warm))[0])
    total = 0
    for name in given.situation or SITUATIONS:
        began, tried = time.perf_counter(), 0

        def points(count: int) -> list[int]:
            nonlocal tried
            chosen = list(range(0, count, given.every))
            tried = len(chosen)
            return chosen

        bad = sweep(name, points, folder / name.replace(" ", "_"), print)
        total += bad
        print(f"{name}: {tried} points, {bad} different, {time.perf_counter() - began:.0f} s", flush=True)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
