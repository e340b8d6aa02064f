"""Manages a run's folder: its path, the lock of the process that uses it, and the record of each start."""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.engine.environment import environment
from trainkit.errors import TrainkitError
from trainkit.files.writing import written_whole
from trainkit.recipe.resolve import write

if TYPE_CHECKING:
    from trainkit.recipe.resolve import Resolved

RECIPE = "recipe.toml"
CHECKPOINTS = "checkpoints"
LOG = "log.txt"
_ENVIRONMENT = "environment.json"
_LOCK = ".lock"


def create(resolved: Resolved, parent: Path | None = None) -> Path:
    """Make a new run folder, ``<run.dir>/<run.name>/<UTC time>-<id>``.

    Args:
        resolved: The recipe, which is written into the folder.
        parent: The checkpoint from which the run is resumed, if it is.

    Returns:
        The folder's path; relative if it is below the working directory.
    """
    settings = resolved.recipe.run
    name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(2)}"
    folder = short_path(settings.dir / settings.name / name)
    (folder / CHECKPOINTS).mkdir(parents=True)
    describe(folder, resolved, parent)
    return folder


def short_path(path: Path) -> Path:
    """Return a path, relative to the working directory if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def newest_first(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that have checkpoints, the one with the most recent checkpoint first."""
    saved = {
        folder: [path.stat().st_mtime_ns for path in (folder / CHECKPOINTS).glob("*-*.safetensors")]
        for folder in folders
    }
    return sorted((folder for folder, times in saved.items() if times), key=lambda each: max(saved[each]), reverse=True)


def describe(folder: Path, resolved: Resolved, parent: Path | None = None) -> None:
    """Write the resolved recipe into a run folder, and add an entry for this start to the environment."""
    with written_whole(folder / RECIPE) as new:
        new.write_text(write(resolved.tree), encoding="utf-8")
    started = environment(resolved) | ({"parent": str(parent)} if parent else {})
    _write_starts(folder, [*starts(folder), started])


def note_end(folder: Path, ended: str, *, finished: bool, doubts: Sequence[str] = ()) -> None:
    """Record how the last start ended.

    Args:
        folder: The run folder.
        ended: How it ended, in words.
        finished: Whether nothing is left to do.
        doubts: Why the result is doubtful.
    """
    before = starts(folder)
    before[-1] |= {"ended": ended, "finished": finished, "doubts": list(doubts)}
    _write_starts(folder, before)


def starts(folder: Path) -> list[dict[str, Any]]:
    """Return the record of each start of a run, with its end if that could be recorded."""
    path = folder / _ENVIRONMENT
    return list(json.loads(path.read_text(encoding="utf-8"))["starts"]) if path.is_file() else []


def doubts(folder: Path) -> list[str]:
    """Return why the result of a run is doubtful, as its last start recorded it."""
    before = starts(folder)
    return list(before[-1].get("doubts", ())) if before else []


def _write_starts(folder: Path, entries: list[dict[str, Any]]) -> None:
    text = json.dumps({"starts": entries}, indent=2) + "\n"
    with written_whole(folder / _ENVIRONMENT) as new:
        new.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a run folder, so that only one process trains in it; the system unlocks it when the process ends.

    Raises:
        TrainkitError: Another process has locked it.
    """
    import fcntl

    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise TrainkitError(
                f"{folder} is in use by another trainkit process ({file.read().strip() or 'unknown'}); "
                "wait until it ends, or stop it"
            ) from error
        file.truncate(0)
        file.write(f"process {_process()}\n")
        file.flush()
        yield


def _process() -> str:
    import os

    return f"{os.getpid()} on {platform.node()}"
