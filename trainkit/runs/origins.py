"""Where the value of each setting of a run comes from, also after resumes, which take it from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.engine.identity import CHECKPOINTS
from trainkit.runs.record import RunRecord

DEFAULT = "default"
UNKNOWN = "not recorded"
_TAKEN_OVER = "the recipe "  # how an origin begins that is the recipe of an earlier start or its checkpoint
_LONGEST_CHAIN = 100


def parent_of(run: RunRecord) -> RunRecord | None:
    """Return the run from which a run began; None: it began at the beginning, or its parent is not found."""
    if run.parent is None:
        return None
    places = [run.folder.resolve().parent / str(run.parent.run)]
    checkpoint = Path(run.parent.checkpoint)
    if checkpoint.parent.name == CHECKPOINTS:
        places.append(checkpoint.parent.parent)
    for place in places:
        if (place / CHECKPOINTS).is_dir():
            found = RunRecord(place)
            if found.id == run.parent.run and found.id != run.id:
                return found
    return None


def ancestors(run: RunRecord) -> list[RunRecord]:
    """Return the runs from which a run began, its parent first, as far as they are found."""
    found: list[RunRecord] = []
    ids = {run.id}
    while len(found) < _LONGEST_CHAIN:
        parent = parent_of(found[-1] if found else run)
        if parent is None or parent.id in ids:
            break
        ids.add(parent.id)
        found.append(parent)
    return found


def origins(run: RunRecord) -> dict[str, str]:
    """Return where each setting comes from: a file and line, ``--set``, "default", or `UNKNOWN`."""
    starts = list(run.starts[::-1])
    for each in ancestors(run):
        starts += each.starts[::-1]
    return {key: _origin(key, starts) for key in run.settings}


def _origin(key: str, starts: Sequence[Mapping[str, Any]]) -> str:
    found = UNKNOWN
    for start in starts:
        known = start.get("origins")
        if not isinstance(known, Mapping):
            return found
        found = str(known.get(key, DEFAULT))
        if not found.startswith(_TAKEN_OVER):
            return found
    return found
