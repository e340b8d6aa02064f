"""Finds run folders: all below a folder, or the one that a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs

from trainkit.engine.identity import CHECKPOINTS, IDENTITY, run_folder_at
from trainkit.engine.run_folder import ENVIRONMENT
from trainkit.errors import CheckpointError, did_you_mean
from trainkit.runs.record import RunRecord

_DEEPEST = 8  # folders within each other that are searched
RUNS = Path("runs")


@attrs.define
class Found:
    """What was found below a folder.

    Attributes:
        runs: The runs, in the order of their creation.
        problems: Folders that look like runs and are none, or that cannot be read: a sentence each.
    """

    runs: list[RunRecord] = attrs.Factory(list)
    problems: list[str] = attrs.Factory(list)


def runs_below(path: Path) -> Found:
    """Return all runs that are at or below a folder; other folders are skipped."""
    found = Found()
    seen: set[tuple[int, int]] = set()
    for folder in _folders(path, found, seen, 0):
        found.runs.append(RunRecord(folder))
    found.runs.sort(key=lambda run: (run.identity.created, run.id, str(run.folder)))
    return found


def _folders(path: Path, found: Found, seen: set[tuple[int, int]], depth: int) -> Iterator[Path]:
    try:
        here = os.stat(path)
        if (here.st_dev, here.st_ino) in seen:
            return  # a link that leads to a folder that was there already
        seen.add((here.st_dev, here.st_ino))
        with os.scandir(path) as entries:
            folders, files = [], set()
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    files.add(entry.name)
    except OSError as error:
        found.problems.append(f"{path} cannot be read: {error.strerror or error}")
        return
    if CHECKPOINTS in folders:
        if {IDENTITY, ENVIRONMENT} & files or _has_checkpoint(path):
            yield path
        else:
            found.problems.append(f"{path} has a folder {CHECKPOINTS}, but trainkit did not write it")
        return
    if depth < _DEEPEST:
        for name in sorted(folders):
            if not name.startswith("."):
                yield from _folders(path / name, found, seen, depth + 1)


def _has_checkpoint(path: Path) -> bool:
    return bool(RunRecord(path).checkpoints.files())


def runs_of(text: str) -> Found:
    """Return the runs that a folder, or a name below ``runs/``, stands for.

    Raises:
        CheckpointError: There is none.
    """
    for path in (Path(text), RUNS / text):
        if path.is_dir():
            return runs_below(path)
    run = run_named(text)
    return Found([run])


def run_named(text: str) -> RunRecord:
    """Return the run that a text stands for.

    A run folder is that run; a folder of runs, or a name, is the newest run in it, as for ``trainkit resume``. The id
    of a run below ``runs/``, or the end of its id, is that run.

    Raises:
        CheckpointError: There is none, or there are several.
    """
    try:
        return RunRecord(run_folder_at(Path(text)))
    except CheckpointError as error:
        if not RUNS.is_dir():
            raise
        known = runs_below(RUNS).runs
        matching = [run for run in known if run.id == text or run.id.endswith(f"-{text}")]
        if not matching:
            matching = [run for run in known if run.name == text][-1:]
        if len(matching) == 1:
            return matching[0]
        if matching:
            folders = ", ".join(str(run.folder) for run in matching)
            raise CheckpointError(
                f'"{text}" is the id of several runs: {folders}; give one of these folders'
            ) from error
        raise CheckpointError(f"{error}; {did_you_mean(text, {run.name for run in known})}") from error
