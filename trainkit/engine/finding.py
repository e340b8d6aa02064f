"""Finds the run that a person means: by its folder, by its name, or by its id as ``trainkit runs`` prints it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tomli

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine.identity import CHECKPOINTS, ENVIRONMENT, IDENTITY, identity_of, newest_first
from trainkit.errors import CheckpointError, did_you_mean

RUNS = Path("runs")

_WITH_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-(.{8,})")
_DEEPEST = 8  # folders within each other that are searched
_FEWEST = 4  # characters with which the id of a run may be shortened
_MOST_SHOWN = 8


def run_folder_at(path: Path, besides: Path | None = None) -> Path:
    """Return the run folder that a person means.

    Args:
        path: A run folder; a folder of run folders, of which the newest is meant; either of these below ``runs/``, as a
            name is; or the id of a run below ``runs/``, its end, or at least four characters with which its end begins.
        besides: A run folder that is not meant where a path stands for the newest run in it.

    Raises:
        CheckpointError: There is none, or there are several; the message lists those that can be meant.
    """
    for candidate in (path, RUNS / path):
        if (candidate / CHECKPOINTS).is_dir():
            return candidate
        for folder in newest_first(candidate.glob("*")):
            if besides is None or not folder.samefile(besides):
                return folder
    for candidate in (path, RUNS / path):
        if _is_below_runs(candidate) and (inside := _others(run_folders_below(candidate), besides)):
            raise CheckpointError(f"{candidate} holds several runs; name one of them:\n{_listed(inside)}")
    known = _others(run_folders_below(RUNS), besides)
    text = str(path)
    if meant := [folder for folder in known if _is_id(text, identity_of(folder).id)]:
        return _only(meant, f'"{text}" is the id of several runs; name one of them by its folder')
    if meant := [folder for folder in known if text in (folder.resolve().parent.name, _name(folder))]:
        if len({folder.resolve().parent for folder in meant}) == 1:
            return newest_first(meant)[0]
        return _only(meant, f'"{text}" is the name of runs in several folders; name one of them by its id or folder')
    wanted = "give a checkpoint (*.safetensors), a run folder, or the name or id of a run in runs/"
    nothing = f"there is no run at {path}; {wanted}"
    if not known:
        raise CheckpointError(nothing)
    words = {word for folder in known for word in (_name(folder), short_id(identity_of(folder).id))}
    hint = did_you_mean(path.name, words)
    near = f"; {hint}" if hint.startswith("did you mean") else ""
    raise CheckpointError(f"{nothing}{near}\nthe newest runs:\n{_listed(known)}")


def run_folders_below(path: Path, problems: list[str] | None = None) -> Iterator[Path]:
    """Yield all run folders at or below a folder; other folders are skipped.

    Args:
        path: The folder.
        problems: Receives a sentence for each folder that looks like a run and is none, or that cannot be read.
    """
    if path.is_dir():
        yield from _folders(path, [] if problems is None else problems, set(), 0)


def _folders(path: Path, problems: list[str], seen: set[tuple[int, int]], depth: int) -> Iterator[Path]:
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
        problems.append(f"{path} cannot be read: {error.strerror or error}")
        return
    if CHECKPOINTS in folders:
        if {IDENTITY, ENVIRONMENT} & files or CheckpointFolder(path / CHECKPOINTS, identity_of(path).id).files():
            yield path
        else:
            problems.append(f"{path} has a folder {CHECKPOINTS}, but trainkit did not write it")
        return
    if depth < _DEEPEST:
        for name in sorted(folders):
            if not name.startswith("."):
                yield from _folders(path / name, problems, seen, depth + 1)


def short_id(run_id: str) -> str:
    """Return the end of a run's id, by which it is known.

    Example:
        >>> short_id("2026-11-21T10-00-00-1a2b3c4d"), short_id("2026-11-21T10-00-00-1a2b3c4d-2")
        ('1a2b3c4d', '1a2b3c4d-2')
    """
    found = _WITH_TIME.fullmatch(run_id)
    return found[1] if found else run_id


def _is_below_runs(path: Path) -> bool:
    return RUNS.resolve() in path.resolve().parents  # elsewhere, a search might take long


def _is_id(text: str, run_id: str) -> bool:
    short = short_id(run_id)
    return text in (run_id, short) or run_id.endswith(f"-{text}") or (len(text) >= _FEWEST and short.startswith(text))


def _others(folders: Iterable[Path], besides: Path | None) -> list[Path]:
    return [folder for folder in folders if besides is None or not folder.samefile(besides)]


def _only(folders: Sequence[Path], several: str) -> Path:
    """Return the only folder.

    Raises:
        CheckpointError: There are several.
    """
    if len(folders) > 1:
        raise CheckpointError(f"{several}:\n{_listed(folders)}")
    return folders[0]


def _listed(folders: Sequence[Path]) -> str:
    """Return a line for each of the newest of some run folders: name, end of the id, folder."""
    shown = newest_first(folders)[:_MOST_SHOWN]
    rows = [(_name(folder), short_id(identity_of(folder).id), str(folder)) for folder in shown]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)] if rows else []
    lines = [f"  {name:<{widths[0]}}  {end:<{widths[1]}}  {folder}" for name, end, folder in rows]
    more = len(folders) - len(shown)
    return "\n".join([*lines, *([f"  … and {more} more: trainkit runs"] if more else [])])


def _name(folder: Path) -> str:
    """Return the name of a run: as its recipe says, else that of the folder above."""
    try:
        name = tomli.loads(identity_of(folder).recipe or "")["run"]["name"]
    except (tomli.TOMLDecodeError, KeyError, TypeError, RecursionError):
        name = None
    return name if isinstance(name, str) else folder.resolve().parent.name
