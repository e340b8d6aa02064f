"""How the processes of a launch ended, as each writes it into the launcher's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs

from trainkit.files.reading import read_small
from trainkit.files.writing import written_whole

LAUNCHER = "TRAINKIT_LAUNCHER"
"""Name of the environment variable that holds the number of the launcher's process."""

START = "TRAINKIT_START"
"""Name of the environment variable that says how often all processes were started before."""

_NAME = "ended-{}.json"
_MOST_BYTES = 1 << 16


@attrs.frozen
class Ending:
    """How a process ended by itself.

    Attributes:
        code: Its exit code.
        is_lost: Whether it ended because it lost another process.
    """

    code: int
    is_lost: bool = False


def is_restarted() -> bool:
    """Return whether the launcher has started this process and the others in place of some that died."""
    return os.environ.get(START, "0") != "0"


def write_ending(folder: Path, rank: int, ending: Ending) -> None:
    """Write down how a process ended.

    Args:
        folder: The launcher's folder.
        rank: The number of the process among all.
        ending: How it ended.
    """
    with written_whole(folder / _NAME.format(rank)) as new:
        new.write_text(json.dumps(attrs.asdict(ending)), encoding="utf-8")


def read_ending(folder: Path, rank: int) -> Ending | None:
    """Return how a process ended; None: it has not, or died."""
    try:
        return Ending(**json.loads(read_small(folder / _NAME.format(rank), "how a process ended", _MOST_BYTES)))
    except (OSError, ValueError, TypeError):
        return None


def clear_endings(folder: Path) -> None:
    """Remove how processes ended, before they are started again."""
    for path in folder.glob(_NAME.format("*")):
        path.unlink()
