"""Manages a run's folder: how it is made, the run's identity, and the record of each start.

    recipe.toml            the resolved recipe of the last start, for people
    recipe-1.toml, …       that of the first start, and so on, if a later one had another recipe
    recipe-0.toml          of a branch: that of the first start of the run with which its line of runs began
    run.json               the run's id, its parent, and what the last start began from
    environment.json       each start and its end
    checkpoints/, …

A folder gets its name when these files are complete in it, so that a process that is killed leaves no half-made run.
What a run *is* stands in ``run.json`` and, as id and digest of the recipe, in each of its checkpoints.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine.changes import makes_another_run, setting_changes
from trainkit.engine.environment import environment
from trainkit.engine.every_run.metrics_file import NAME as METRICS
from trainkit.engine.folder_lock import LOCK, FolderInUseError, Locked, alone_in, lock
from trainkit.engine.identity import (
    CHECKPOINTS,
    ENVIRONMENT,
    IDENTITY,
    MOST_BYTES,
    Identity,
    Origin,
    digest,
    identity_of,
    newest_first,
    parsed_time,
)
from trainkit.engine.journal import NAME as JOURNAL
from trainkit.engine.launched import may_continue, note_folder
from trainkit.engine.older_recipe import RecipeComparison, compare
from trainkit.engine.variables import changed_since
from trainkit.errors import TrainkitError
from trainkit.files.reading import read_small
from trainkit.files.writing import make_folder, remove_unfinished, set_aside, sync_folder, written_whole
from trainkit.printable import show_as
from trainkit.recipe.origin import dotted
from trainkit.recipe.resolve import write
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.groups.resuming import Choice
    from trainkit.recipe.resolve import Resolved

_LOGGER = logging.getLogger("trainkit")

RECIPE = "recipe.toml"
LOG = "log.txt"
CPU_WAIT = "cpu_wait"
"""Key, in the record of a start, of how long it was kept waiting for a CPU."""
_UNFINISHED = ".new-"
_OF_FIRST_RUN = "recipe-0.toml"
_KEPT = re.compile(r"recipe-([1-9]\d{0,5})\.toml")


@contextlib.contextmanager
def choosing(resolved: Resolved) -> Iterator[None]:
    """Let no other process choose or make a folder for a run of this name while the block runs."""
    settings = resolved.recipe.run
    with alone_in(settings.dir / settings.name):
        yield


@contextlib.contextmanager
def created(
    resolved: Resolved, begun_from: Origin | None = None, after: str = "", on_extend: Choice | None = None
) -> Iterator[Path]:
    """Make a new run folder, ``<run.dir>/<run.name>/<UTC time>-<id>``, and lock it until the block ends.

    The path is absolute, and messages show it relative to the working directory (`at_fixed_place`).

    Args:
        resolved: The recipe, which is written into the folder.
        begun_from: The checkpoint from which the run begins; None: the beginning.
        after: When the parent run was created.
        on_extend: How learning rates continue.
    """
    settings = resolved.recipe.run
    above = at_fixed_place(short_path(settings.dir / settings.name))
    make_folder(above)
    _remove_unfinished(above)
    with contextlib.ExitStack() as locks:
        locked = _new_folder(above, locks)
        new = locked.folder
        try:
            locked.folder = folder = _filled_and_named(new, above, resolved, begun_from, after, on_extend)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        note_folder(folder)
        yield folder


def _new_folder(above: Path, locks: contextlib.ExitStack) -> Locked:
    """Make a folder without a name, and lock it.

    Another process that starts may take it for one that a killed process left, and remove it, until it is locked. Then
    another one is made.
    """
    while True:
        new = above / f"{_UNFINISHED}{secrets.token_hex(8)}"
        new.mkdir()
        with contextlib.ExitStack() as attempt:
            try:
                locked = attempt.enter_context(lock(new))
            except TrainkitError as error:
                if new.exists() and not isinstance(error, FolderInUseError):
                    raise
                continue
            if (new / LOCK).exists():
                locks.enter_context(attempt.pop_all())
                return locked


def _filled_and_named(
    new: Path, above: Path, resolved: Resolved, begun_from: Origin | None, after: str, on_extend: Choice | None
) -> Path:
    """Write what every run folder has into a new one, give it a name that no other has, and return its path."""
    (new / CHECKPOINTS).mkdir()
    now = datetime.now(UTC)
    if after and (before := parsed_time(after)) is not None:
        now = max(now, before + timedelta(microseconds=1))
    stem = f"{now:%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(4)}"
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        if os.path.lexists(above / name):
            continue
        describe(new, resolved, Identity(name, now.isoformat(), begun_from), begun_from, on_extend)
        sync_folder(new)
        try:
            os.rename(new, above / name)
        except OSError:
            if not os.path.lexists(above / name):
                raise
            continue  # another process took the name just now
        sync_folder(above)
        return above / name
    raise AssertionError("numbers do not end")


def discard(folder: Path) -> None:
    """Remove the folder of a run in which nothing has run; a process that is killed leaves no half of it."""
    hidden = folder.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
    os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _remove_unfinished(above: Path) -> None:
    """Remove what killed processes have left of folders that they were making or removing."""
    for path in above.glob(f"{_UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink() and re.fullmatch(r"[0-9a-f]{16}", path.name[len(_UNFINISHED) :]):
            with contextlib.suppress(Exception), lock(path):
                shutil.rmtree(path)


def short_path(path: Path) -> Path:
    """Return a path, relative to the working directory if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def at_fixed_place(folder: Path) -> Path:
    """Return the absolute path of a folder, which a change of the working directory does not move.

    Messages show the path as it was given.
    """
    fixed = folder.absolute()
    if fixed != folder:
        show_as(str(fixed), str(folder))
    return fixed


def describe(
    folder: Path,
    resolved: Resolved,
    identity: Identity,
    begun_from: Origin | None = None,
    on_extend: Choice | None = None,
) -> None:
    """Write down a start of a run: its recipe, what it begins from, and where it runs."""
    recipe, before = write(resolved.tree), starts(folder)
    _keep_earlier_recipe(folder, recipe, len(before))
    _write(folder / RECIPE, recipe)
    is_first = begun_from is not None and begun_from == identity.parent
    started = environment(resolved) | ({"parent": begun_from.checkpoint} if begun_from and is_first else {})
    _write_starts(folder, [*before, started])
    identity = attrs.evolve(identity, recipe=recipe, begun_from=begun_from, on_extend=on_extend)
    _write(folder / IDENTITY, json.dumps(attrs.asdict(identity), indent=2) + "\n")


def recipe_of_start(folder: Path, number: int) -> Path:
    """Return the file of the resolved recipe of a start; the first start has number 1."""
    kept = (int(found[1]) for path in folder.glob("recipe-*.toml") if (found := _KEPT.fullmatch(path.name)))
    later = [each for each in kept if each >= number]
    return folder / (f"recipe-{min(later)}.toml" if later else RECIPE)


def inherit(folder: Path, parent: Path) -> None:
    """Keep in the folder of a branch the recipe with which the first run of its line began, if it is known."""
    if (first := first_recipe(parent)) is not None:
        _write(folder / _OF_FIRST_RUN, first)


def first_recipe(folder: Path) -> str | None:
    """Return the resolved recipe with which a run began, or for a branch, the first run of its line; None: unknown.

    With the journal, it describes the whole run.
    """
    if (folder / _OF_FIRST_RUN).is_file():
        file = folder / _OF_FIRST_RUN
    elif identity_of(folder).parent is None:
        file = recipe_of_start(folder, 1)
    else:
        return None
    try:
        return read_small(file, "a recipe", MOST_BYTES).decode()
    except (OSError, ValueError):
        return None


def _keep_earlier_recipe(folder: Path, recipe: str, number: int) -> None:
    """Keep the recipe of the last start, which was the start ``number``, if the next one has another."""
    try:
        before = read_small(folder / RECIPE, "a recipe", MOST_BYTES).decode(errors="surrogateescape")
    except (OSError, ValueError):
        return  # there is none
    if before != recipe and number > 0:
        with written_whole(folder / f"recipe-{number}.toml") as new:
            new.write_bytes(before.encode(errors="surrogateescape"))


def note_built(folder: Path, known: Mapping[str, Any]) -> None:
    """Record of the last start what is known once its parts are built, such as on what it computes."""
    before = starts(folder) or [{}]
    before[-1] |= known
    _write_starts(folder, before)


def cpu_wait(waited: float, seconds: float) -> dict[str, Any]:
    """Return what the record of a start says of how many of its seconds it was kept waiting for a CPU."""
    return {CPU_WAIT: {"seconds": round(waited, 3), "of_seconds": round(seconds, 3)}}


def note_cpu_wait(folder: Path, waited: float, seconds: float) -> None:
    """Record of the last start, which goes on, for how many of its seconds so far it was kept waiting for a CPU."""
    note_built(folder, cpu_wait(waited, seconds))


def note_end(
    folder: Path,
    ended: str,
    *,
    finished: bool,
    doubts: Sequence[str] = (),
    error: str = "",
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Record how the last start ended.

    Args:
        folder: The run folder.
        ended: How it ended, in words.
        finished: Whether nothing is left to do.
        doubts: Why the result is doubtful.
        error: The message of the error with which it ended; "": it ended with none.
        more: What else is recorded.
    """
    before = starts(folder) or [{}]
    before[-1] |= {"ended": ended, "finished": finished, "doubts": list(doubts)}
    before[-1] |= {"ended_at": datetime.now(UTC).isoformat(timespec="seconds")} | ({"error": error} if error else {})
    before[-1] |= more
    _write_starts(folder, before)


def starts(folder: Path) -> list[dict[str, Any]]:
    """Return the record of each start of a run, with its end if that could be recorded; none if it cannot be read."""
    try:
        found = json.loads(read_small(folder / ENVIRONMENT, "the record of a run", MOST_BYTES))["starts"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else []


def tidy(folder: Path) -> None:
    """Remove what killed processes did not finish, and set damaged records aside under other names, which is said.

    The caller has locked the folder.
    """
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
        remove_unfinished(place)
    for name in (RECIPE, LOG, METRICS, ENVIRONMENT, IDENTITY, JOURNAL):
        path = folder / name
        if os.path.lexists(path) and not path.is_file():
            _LOGGER.warning("%s is no file; it is kept as %s, out of the way", path, set_aside(path).name)
    for name, is_good in ((ENVIRONMENT, bool(starts(folder))), (IDENTITY, identity_of(folder).recipe is not None)):
        if not is_good and os.path.lexists(folder / name):
            aside = set_aside(folder / name)
            _LOGGER.warning(
                "%s is damaged; it is kept as %s, and the run continues without it", folder / name, aside.name
            )


def is_finished(folder: Path) -> bool:
    """Return whether nothing of a run is left to do, its end included."""
    known = starts(folder)
    return bool(known and known[-1].get("finished"))


def unsaved_start(folder: Path, newest: Mapping[str, Any] | None) -> Identity | None:
    """Return how the last start began, if it was killed before it saved anything; None: it saved, or it ended.

    Args:
        folder: The run folder.
        newest: The run's newest checkpoint, or its header; None: there is none.
    """
    identity, known = identity_of(folder), starts(folder)
    if identity.recipe is None:
        return None
    if newest is None:
        return identity
    begun = identity.begun_from
    nothing_since = begun is not None and (begun.epoch, begun.step) == (newest["epoch"], newest["step"])
    return identity if nothing_since and known and "ended" not in known[-1] else None


def is_asked(folder: Path, resolved: Resolved) -> bool:
    """Return whether a person started the run with this recipe, and edits have changed it since."""
    asked = identity_of(folder).asked
    return asked is not None and (asked == write(resolved.tree) or compare(asked, resolved).is_same)


def compared_with(folder: Path, resolved: Resolved) -> RecipeComparison:
    """Compare a recipe with that with which a run goes on: of its newest checkpoint, or of a start that saved nothing.

    An older version may have written it, which did not have all settings of today.
    """
    wanted = write(resolved.tree)
    if is_asked(folder, resolved):
        return RecipeComparison()
    newest = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id).newest_header()
    differ: RecipeComparison | None = None
    if newest is not None:
        said = newest.get("run")
        known = said.get("recipe") if isinstance(said, Mapping) else None
        text = str(newest.get("recipe"))
        is_equal = digest(wanted) == (known if isinstance(known, str) else digest(text))
        found = RecipeComparison() if is_equal else compare(text, resolved, newest.get("components") or ())
        if found.is_same:
            changes = setting_changes(wanted, resolved, changed_since(newest, resolved.tree))
            others = [dotted(each.where) for each in changes if makes_another_run(each, resolved.recipe)]
            if not others:
                return found
            found = RecipeComparison(differences=tuple(f"{each} (an environment variable)" for each in others))
        differ = found
    unsaved = unsaved_start(folder, newest)
    if unsaved is not None and unsaved.recipe is not None:
        found = RecipeComparison() if unsaved.recipe == wanted else compare(unsaved.recipe, resolved)
        if found.is_same or differ is None:
            return found
    return differ or RecipeComparison(differences=("its recipe is not known",))


def of_another_recipe(resolved: Resolved) -> tuple[Path, str] | None:
    """Return the newest run folder of a recipe's name, and in what its recipe differs; None: there is none.

    Args:
        resolved: A recipe of which there is no `earlier_run`.
    """
    settings = resolved.recipe.run
    for folder in newest_first((settings.dir / settings.name).glob("*")):
        if not may_continue(folder):
            return None
        differences = compared_with(folder, resolved).differences
        return (short_path(folder), some_of(differences)) if differences else None
    return None


def earlier_run(resolved: Resolved) -> Path | None:
    """Return the newest run folder of the same resolved recipe, by what its newest checkpoint or last start says."""
    settings = resolved.recipe.run
    for folder in newest_first((settings.dir / settings.name).glob("*")):
        if may_continue(folder) and compared_with(folder, resolved).is_same:
            return short_path(folder)
    return None


def doubts(folder: Path) -> list[str]:
    """Return why the result of a run is doubtful, as its last start recorded it."""
    before = starts(folder)
    return list(before[-1].get("doubts", ())) if before else []


def _write_starts(folder: Path, entries: list[dict[str, Any]]) -> None:
    _write(folder / ENVIRONMENT, json.dumps({"starts": entries}, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    with written_whole(path) as new:
        new.write_text(text, encoding="utf-8")
