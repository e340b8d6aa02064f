"""Chooses where a resumed run begins: it locks the run folder, then looks for the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.checkpoint.content import read_run
from trainkit.checkpoint.folder import CheckpointFolder, run_id_of
from trainkit.engine import run_folder
from trainkit.engine.finding import run_folder_at
from trainkit.engine.folder_lock import lock
from trainkit.engine.identity import CHECKPOINTS, Identity, identity_of, is_of_the_future
from trainkit.errors import CheckpointError, TrainkitError
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.console import Console


@attrs.frozen
class Beginning:
    """Where a resumed run begins.

    Attributes:
        file: The checkpoint; None: the run was killed before its first one, and begins at the beginning.
        saved: Its content.
        folder: The run folder that the user named, or that the checkpoint lies in; None: it lies in none.
        in_place: Whether the run continues in this folder, which is locked.
        unsaved: How the last start in the folder began, if it was killed before it saved anything.
    """

    file: Path | None
    saved: dict[str, Any] | None
    folder: Path | None
    in_place: bool
    unsaved: Identity | None = None


def choose(path: Path, epoch: int | None, console: Console, locks: contextlib.ExitStack) -> Beginning:
    """Lock the run folder that a path stands for, and choose the checkpoint.

    Args:
        path: See `resume`.
        epoch: Number of finished epochs; None: the newest good checkpoint.
        console: Prints a message for each file that is skipped.
        locks: Receives the lock.

    Raises:
        CheckpointError: There is no such checkpoint.
        TrainkitError: Another process trains in the folder, or it cannot be written, and the run would continue there.
    """
    given, folder = _named(path, epoch, console)
    if folder is None:
        assert given is not None
        return Beginning(given, read_run(given), None, in_place=False)
    folder = run_folder.at_fixed_place(folder)
    not_ours: TrainkitError | None = None
    try:
        locks.enter_context(lock(folder))
    except TrainkitError as error:  # another process has it, or it can only be read
        if given is None and epoch is None:
            raise
        not_ours = error  # an earlier checkpoint may still be resumed from, in a new folder
    else:
        run_folder.tidy(folder)
    run_id = identity_of(folder).id
    checkpoints = CheckpointFolder(folder / CHECKPOINTS, run_id)
    if others := checkpoints.others():
        console.say(f"left alone in {checkpoints.path}: {some_of(others)}")
    newest = _newest(checkpoints, folder, console, set_damaged_aside=not_ours is None)
    if given is None and epoch is None:
        if newest is None:
            return _without_checkpoint(folder)
        return Beginning(*newest, folder, True, run_folder.unsaved_start(folder, newest[1]))
    file = checkpoints.at_epoch(epoch) if given is None and epoch is not None else given
    assert file is not None
    if newest is not None and file.samefile(newest[0]):
        file, saved = newest
    else:
        saved = read_run(file)
    writer = run_id_of(saved)
    if writer not in (None, run_id):
        console.say(f"{file} is a checkpoint of run {writer}, not of the run in {folder}, {run_id}")
        newest = None
    in_place = newest is not None and (newest[1]["step"], newest[1]["epoch"]) <= (saved["step"], saved["epoch"])
    if in_place and not_ours is not None:
        raise not_ours
    return Beginning(file, saved, folder, in_place)


def _newest(
    checkpoints: CheckpointFolder, folder: Path, console: Console, *, set_damaged_aside: bool
) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest good checkpoint and its content; None: no checkpoint of the run was written yet.

    Raises:
        CheckpointError: There are checkpoints, but none is good.
    """
    try:
        return checkpoints.newest_good(console.say, reader=read_run, set_damaged_aside=set_damaged_aside)
    except CheckpointError:
        if checkpoints.has_none_of_this_run() and identity_of(folder).recipe is not None:
            return None
        raise


def _without_checkpoint(folder: Path) -> Beginning:
    """Return how a run begins that was killed before its first checkpoint.

    Raises:
        CheckpointError: It began from a checkpoint of another run, which is no longer there.
    """
    identity = identity_of(folder)
    origin = identity.begun_from
    if origin is None:
        return Beginning(None, None, folder, True, identity)
    named = Path(origin.checkpoint)
    beside = folder.parent / (origin.run or "") / CHECKPOINTS / named.name  # the runs may have been moved
    file = next((each for each in (named, beside) if each.is_file()), None)
    saved = None if file is None else read_run(file)
    if file is None or saved is None or (saved["epoch"], saved["step"]) != (origin.epoch, origin.step):
        raise CheckpointError(
            f"{folder} has no checkpoint yet, and {named}, from which it began, is not there any more; "
            "give another run folder or checkpoint"
        )
    return Beginning(file, saved, folder, True, identity)


def is_history_of(saved: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the values in a run folder are those that led to a checkpoint, which may be of its parent."""
    known, writer = identity_of(folder), run_id_of(saved)
    if writer in (None, known.id):
        return True
    parent = known.parent
    return parent is not None and parent.run == writer and saved["epoch"] <= parent.epoch


def _named(path: Path, epoch: int | None, console: Console) -> tuple[Path | None, Path | None]:
    """Return the checkpoint and the run folder that a path stands for; one of them may be None.

    Raises:
        CheckpointError: It stands for neither.
    """
    if path.is_file():
        if path.suffix == ".toml":
            raise CheckpointError(f"{path} is a recipe, not a checkpoint; start a run with: trainkit run {path}")
        if epoch is not None:
            raise CheckpointError(f"{path} is a single checkpoint; --epoch needs a run folder to choose from")
        folder = path.absolute().parent
        return path, run_folder.short_path(folder.parent) if folder.name == CHECKPOINTS else None
    folder = run_folder_at(path)
    if folder not in (path, Path("runs") / path):  # it was chosen among others
        if others := sorted(each.name for each in folder.parent.glob("*") if not (each / CHECKPOINTS).is_dir()):
            console.say(f"left alone in {folder.parent}: {some_of(others)}")
        if is_of_the_future(folder):
            console.say(f"warning: {folder} is the newest run by its date, but this date is yet to come")
    return None, folder
