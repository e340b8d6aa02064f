"""Reads the runs below a folder, or those that a name means."""

from __future__ import annotations

from pathlib import Path

import attrs

from trainkit.engine.finding import RUNS, run_folder_at, run_folders_below
from trainkit.runs.record import RunRecord


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
    found.runs = [RunRecord(folder) for folder in run_folders_below(path, found.problems)]
    found.runs.sort(key=lambda run: (run.identity.created, run.id, str(run.folder)))
    return found


def runs_of(text: str) -> Found:
    """Return the runs that a folder, or a name below ``runs/``, stands for.

    Raises:
        CheckpointError: There is none.
    """
    for path in (Path(text), RUNS / text):
        if path.is_dir():
            return runs_below(path)
    return Found([run_named(text)])


def run_named(text: str) -> RunRecord:
    """Return the run that a person means; see `run_folder_at`.

    Raises:
        CheckpointError: There is none, or there are several.
    """
    return RunRecord(run_folder_at(Path(text)))
