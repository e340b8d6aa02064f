"""Resumes a run: restores the state of a checkpoint in a run, and lets it continue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import tomli

from trainkit.checkpoint.folder import CheckpointFolder, Position, run_id_of
from trainkit.engine import journal, run_folder
from trainkit.engine.beginning import choose, is_history_of
from trainkit.engine.build import build
from trainkit.engine.changes import Redefinitions, setting_changes, without_moves
from trainkit.engine.every_run import metrics_file
from trainkit.engine.every_run.requests import Requests
from trainkit.engine.every_run.saving import facts_of, restore, saver_of
from trainkit.engine.every_run.watched_values import WatchedValues
from trainkit.engine.fingerprint import other_data
from trainkit.engine.identity import CHECKPOINTS, Origin, identity_of
from trainkit.engine.older_recipe import completed, news_of
from trainkit.engine.resume_report import group_changes, other_facts, run_changes
from trainkit.engine.resumed_groups import (
    ask_early,
    forgotten_memories,
    name_then,
    point_of,
    resumed_groups,
    saved_groups,
)
from trainkit.engine.saved_recipe import other_packages, recipe_then, resolve_saved
from trainkit.engine.start import (
    NOTHING_MORE,
    ExitCode,
    Extra,
    Report,
    RunOutcome,
    execute,
    finished_before,
    no_report,
    start_in,
    warn_of_repeats,
)
from trainkit.engine.variables import changed_since
from trainkit.processes.meeting import meeting
from trainkit.recipe.differing import sets_between
from trainkit.recipe.origin import dotted
from trainkit.recipe.references import variables
from trainkit.recipe.resolve import Resolved, resolve
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.checkpoint.optimizer_state import LoadReport
    from trainkit.console import Console
    from trainkit.engine.beginning import Beginning
    from trainkit.engine.changes import SettingChange
    from trainkit.engine.journal import Request
    from trainkit.engine.live_run import LiveRun
    from trainkit.groups.resuming import Choice, ResumedGroup, SavedGroup
    from trainkit.recipe.root import Recipe
    from trainkit.recipe.structure import AllowCode


def resume(
    path: Path,
    console: Console,
    *,
    sets: Sequence[str] = (),
    recipe: Path | Resolved | None = None,
    epoch: int | None = None,
    on_extend: Choice | None = None,
    allow_code: AllowCode = False,
    extra: Extra = NOTHING_MORE,
    branch: bool = False,
    locked: Callable[[], None] = lambda: None,
    report: Report = no_report,
) -> RunOutcome | ExitCode:
    """Resume a run from a checkpoint.

    From the newest checkpoint of a run folder, the run continues in that folder; from an earlier one, it continues in a
    new folder, which records the checkpoint as its parent. Before anything runs, differences are reported.

    Args:
        path: A checkpoint file; a run folder or a folder of run folders (of which the newest is used); or a name below
            runs/.
        console: Prints the messages.
        sets: Changes to the recipe, in the form ``a.b=c``.
        recipe: A recipe to use instead of the one in the checkpoint.
        epoch: For a run folder, use the checkpoint after this many finished epochs instead of the newest.
        on_extend: How learning rates continue if the run's length or a schedule has changed.
        allow_code: Which of the classes that the checkpoint's recipe names as ``module:Class`` may be imported: all,
            none, or those listed.
        extra: Further live parts.
        branch: Whether the run continues in a new folder even from the newest checkpoint.
        locked: Called when the run folder is locked.
        report: Called with the outcome, unless the run failed.

    Returns:
        How the run ended; if there was nothing left to do, only the exit code of the run that has ended.

    Raises:
        CheckpointError: There is no good checkpoint, or it does not fit the run.
        RecipeError: The changed recipe is wrong, it names code that is not allowed, or ``on_extend`` must be given.
    """
    console.log_to(None)
    with console.capture_logging(), contextlib.ExitStack() as locks:
        begin = choose(path, epoch, console, locks)
        if branch:
            begin = attrs.evolve(begin, in_place=False, unsaved=None)
        locked()
        edits = _edits_at_beginning(begin)
        if isinstance(recipe, Resolved) and (edits or _is_asked(begin, recipe)):
            recipe = None  # that of the run, which its checkpoint has with all edits so far
        by_person = bool(sets) or recipe is not None
        is_as_saved = recipe is None and not (edits or sets) and begin.unsaved is None
        resolved = _resolve(recipe, begin, (*journal.sets_of(edits), *sets), allow_code)
        on_extend = on_extend or next((each.on_extend for each in reversed(edits) if each.on_extend), None)
        for name, at in variables(resolved.tree).items():  # said before any part is built and can use the value
            console.say(f"the environment variable {name} is read for {dotted(at)}")
        if begin.unsaved is not None:
            console.say(
                f"the last start of the run in {begin.folder} saved nothing before it was killed: "
                "it is started again as it was asked for"
            )
            on_extend = on_extend or begin.unsaved.on_extend
        if begin.saved is None or begin.file is None:
            assert begin.folder is not None
            return start_in(begin.folder, resolved, console, is_new=False, report=report, extra=extra)
        asked = _Request(resolved, on_extend, allow_code, extra, report, edits, by_person, is_as_saved)
        return _resume_from(begin, asked, console, locks)


@attrs.frozen
class _Request:
    """What is asked for; see `resume`.

    Attributes:
        edits: The edits that took effect where the run begins, and that its checkpoint does not have yet.
        by_person: Whether a person has given the recipe, or changes to it.
        is_as_saved: Whether the recipe is that of the checkpoint, without a change.
    """

    resolved: Resolved
    on_extend: Choice | None
    allow_code: AllowCode
    extra: Extra
    report: Report
    edits: Sequence[Request]
    by_person: bool
    is_as_saved: bool


@attrs.frozen
class _Restored:
    """A run with the state of a checkpoint, and what is not as it was.

    Attributes:
        run: The run.
        changes: The settings that have changed.
        news_of_data: A line for each thing in which the data differs.
        old: Each group as it was saved.
        groups: Each group as it continues.
        forgotten: The groups whose schedule forgets the values so far.
        loaded: Which parameters have no saved optimizer state, and the reverse.
    """

    run: LiveRun
    changes: Sequence[SettingChange]
    news_of_data: Sequence[str]
    old: Mapping[str, SavedGroup | None]
    groups: Mapping[str, ResumedGroup]
    forgotten: Sequence[str]
    loaded: LoadReport


def _resume_from(
    begin: Beginning, asked: _Request, console: Console, locks: contextlib.ExitStack
) -> RunOutcome | ExitCode:
    assert begin.file is not None
    assert begin.saved is not None
    file, saved, resolved = begin.file, begin.saved, asked.resolved
    known, new = completed(saved["recipe"], resolved, saved["components"])
    changes = setting_changes(known, resolved, changed_since(saved, resolved.tree))
    has_ended = not begin.in_place or begin.folder is None or run_folder.is_finished(begin.folder)
    if has_ended and (why := _nothing_left(resolved, saved, changes)) is not None:
        console.say(f"{file}: {why}; nothing is left to do{_how_to_continue(resolved.recipe, saved)}")
        doubts: Sequence[str] = saved.get("doubts", ())
        if begin.in_place and begin.folder is not None:
            doubts = run_folder.doubts(begin.folder)
        return finished_before(doubts, console)
    then = _recipe_then(begin, asked, console)
    if asked.on_extend is None:
        ask_early(resolved.recipe, then, saved)
    origin = Origin(str(run_folder.short_path(file)), run_id_of(saved), saved["epoch"], saved["step"])
    folder = _folder(begin, asked, origin, locks)
    try:
        restored = _restored(begin, asked, then, changes, folder)
    except BaseException:
        if not begin.in_place:
            run_folder.discard(folder)  # nothing was run in it
        raise
    run = restored.run
    requests = run.parts["requests"]
    assert isinstance(requests, Requests)
    requests.applied = [*_applied(saved), *(each.id for each in asked.edits)]
    watched = run.parts["watched_values"]
    assert isinstance(watched, WatchedValues)
    watched.is_checked = not restored.changes
    if not begin.in_place and begin.folder is not None:
        run_folder.inherit(folder, begin.folder)
        journal.inherit(folder, begin.folder, Position(saved["step"], saved["epoch"]), _applied(saved))
    is_asked_again = begin.unsaved is not None and not asked.edits
    if (asked.by_person or is_asked_again) and (sets := _sets_of_changes(known, resolved, restored.changes)):
        here = Position(saved["step"], saved["epoch"])
        requests.by_resume = journal.drafted("edit", sets=sets, on_extend=asked.on_extend, taken=here)
    if begin.in_place and (why := _nothing_left(resolved, saved, restored.changes)) is not None:
        console.say(f"{file}: {why}; the end of the run is made up for")
        run.state.stop_reason = saved.get("stop_reason")
    saver_of(run).newest = file
    if begin.in_place:
        identity = run.identity
        if asked.by_person:
            identity = attrs.evolve(identity, asked=None)
        elif asked.edits and identity.asked is None:
            identity = attrs.evolve(identity, asked=identity.recipe)
        run_folder.describe(folder, resolved, identity, origin, asked.on_extend)
    if file.parent.name == CHECKPOINTS and is_history_of(saved, file.parent.parent):
        run.state.about.continues = file.parent.parent
        is_cut = metrics_file.cut_back(file.parent.parent, saved["epoch"], run.state.evaluated_step, into=folder)
        if is_cut and begin.in_place:
            warn_of_repeats(run, console)
    console.log_to(folder / run_folder.LOG)
    console.say(f"run folder: {folder}")
    began = f"resuming from {file}: {saved['epoch']} epochs, {saved['step']} steps finished"
    differences = [*filter(None, (news_of(new),)), *_what_differs(restored, saved)]
    run.state.about.resume_plan = (began, *differences)
    console.say(began)
    for line in differences:
        console.say(f"  {line}")
    return execute(run, console, asked.report)


def _recipe_then(begin: Beginning, asked: _Request, console: Console) -> Recipe:
    """Return the recipe of the checkpoint, as far as it can still be read."""
    assert begin.saved is not None
    if asked.is_as_saved:
        return asked.resolved.recipe
    then, is_complete = recipe_then(begin.saved["recipe"], begin.saved["components"], asked.resolved, asked.allow_code)
    if not is_complete:
        console.say(
            f"the recipe in {begin.file} cannot be read any more; what it has in common with this one is compared"
        )
        for line in other_packages(begin.saved["components"]):
            console.say(f"  {line}")
    return then


def _folder(begin: Beginning, asked: _Request, origin: Origin, locks: contextlib.ExitStack) -> Path:
    """Return the folder in which the run continues, which is locked: its own, or a new one."""
    if begin.in_place and begin.folder is not None:
        return begin.folder
    locks.close()
    after = identity_of(begin.folder).created if begin.folder is not None else ""
    return locks.enter_context(run_folder.created(asked.resolved, origin, after, asked.on_extend))


def _restored(
    begin: Beginning, asked: _Request, then: Recipe, changes: Sequence[SettingChange], folder: Path
) -> _Restored:
    """Build the run, and restore the state of the checkpoint in it."""
    assert begin.file is not None
    assert begin.saved is not None
    saved, recipe = begin.saved, asked.resolved.recipe
    run = build(asked.resolved, folder, finished=(saved["epoch"], saved["epoch_step"]), place=meeting().place)
    for name, make in asked.extra.items():
        run.add(name, make(run))
    plans = run.groups.plans
    old = saved_groups(then, saved, {name: name_then(name, run, saved) for name in plans})
    fingerprint = saved.get("fingerprint") or {}
    changes = without_moves(changes, recipe, fingerprint, run.fingerprint)
    news_of_data = [*other_facts(saved.get("facts"), facts_of(run)), *other_data(fingerprint, run.fingerprint)]
    redefined = Redefinitions(changes, news_of_data, recipe, then)
    forgotten = dict(forgotten_memories(old, plans, redefined, then.monitor))
    groups = resumed_groups(plans, {**old, **forgotten}, point_of(run, saved), asked.on_extend)
    loaded = restore(run, saved, groups)
    saver_of(run).take_over(_adopted(saved))
    run.state.redefined = redefined.why
    run.not_acted_on = tuple(each.without(redefined.why) for each in run.not_acted_on)
    if not begin.in_place:
        _adopt_best(run, begin.file.parent)
    return _Restored(run, changes, news_of_data, old, groups, list(forgotten), loaded)


def _sets_of_changes(known: str, resolved: Resolved, changes: Sequence[SettingChange]) -> tuple[str, ...]:
    """Return what a person has changed of a checkpoint's recipe, without what is harmless, as values of ``--set``.

    Args:
        known: The text of the checkpoint's recipe.
        resolved: The recipe of the resumed run.
        changes: What is said of the changes.
    """
    harmless = {each.where for each in changes if each.is_harmless}
    if not any(not each.is_harmless and each.before != each.after for each in changes):
        return ()
    return tuple(sets_between(tomli.loads(known), resolved.tree, harmless))


def _is_asked(begin: Beginning, recipe: Resolved) -> bool:
    """Return whether a run that continues in its folder is that of a recipe which edits have changed since."""
    return begin.in_place and begin.folder is not None and run_folder.is_asked(begin.folder, recipe)


def _edits_at_beginning(begin: Beginning) -> list[Request]:
    """Return the edits that took effect where a run begins, and that its checkpoint does not have yet."""
    if begin.folder is None or begin.saved is None or not begin.in_place:
        return []
    here = Position(begin.saved["step"], begin.saved["epoch"])
    return journal.edits_at(journal.read(begin.folder), here, _applied(begin.saved))


def _applied(saved: Mapping[str, Any]) -> Sequence[str]:
    """Return the ids of the edits that the recipe of a checkpoint has; an older version wrote none."""
    written_by = saved.get("run")
    edits = written_by.get("edits") if isinstance(written_by, Mapping) else None
    return [each for each in edits if isinstance(each, str)] if isinstance(edits, list) else []


def _what_differs(restored: _Restored, saved: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a resume plan."""
    run = restored.run
    yield from run_changes(saved, run, restored.changes, restored.news_of_data)
    yield from (f"group {name}: its schedule forgets the values so far" for name in restored.forgotten)
    yield from group_changes(run, saved, restored.old, restored.groups)
    for names, what in (
        (restored.loaded.fresh, "start without optimizer state"),
        (restored.loaded.unused, "no longer exist"),
    ):
        if names:
            yield f"parameters that {what}: {some_of(names)}"


def _resolve(recipe: Path | Resolved | None, begin: Beginning, sets: Sequence[str], allow_code: AllowCode) -> Resolved:
    if isinstance(recipe, Path):
        return resolve(recipe, sets)
    if recipe is not None:
        return recipe
    components = begin.saved["components"] if begin.saved is not None else ()
    if begin.unsaved is not None and begin.unsaved.recipe is not None:
        text, source = begin.unsaved.recipe, f"the recipe of the last start in {begin.folder}"
    else:
        assert begin.saved is not None
        text, source = begin.saved["recipe"], f"the recipe in {begin.file}"
    return resolve_saved(text, components, source, sets, allow_code)


def _nothing_left(resolved: Resolved, saved: Mapping[str, Any], changes: Sequence[SettingChange]) -> str | None:
    """Return why there is nothing left to do, in words; None: there is."""
    run = resolved.recipe.run
    if saved["step"] > saved["epoch_step"]:
        return None  # the epoch at least has to be closed
    if saved["step"] >= run.steps if run.steps is not None else saved["epoch"] >= run.num_epochs():
        length = f"{run.epochs} epochs" if run.steps is None else f"{run.steps} steps"
        return f"all {length} are finished"
    stopped = saved.get("stop_reason")
    if stopped and all(change.is_harmless for change in changes):
        return f"the run ended after {saved['epoch']} epochs: {stopped}"
    return None


def _how_to_continue(recipe: Recipe, saved: Mapping[str, Any]) -> str:
    if not saved.get("stop_reason"):
        return ""
    run = recipe.run
    longer = f"--epochs {run.num_epochs() + 10}" if run.steps is None else f"--steps {2 * run.steps}"
    return f". To continue in spite of that, change a setting, for example with {longer}"


def _adopted(saved: Mapping[str, Any]) -> list[str]:
    """Return the names of the checkpoints of other runs beside a checkpoint, as it says; older versions say none."""
    written_by = saved.get("run")
    names = written_by.get("adopted") if isinstance(written_by, Mapping) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _adopt_best(run: LiveRun, checkpoints: Path) -> None:
    """Bring the best checkpoints so far into the new folder of a run that is resumed from an earlier checkpoint."""
    before, folder = CheckpointFolder(checkpoints), CheckpointFolder(run.state.folder / CHECKPOINTS)
    for best in saver_of(run).all_best:
        if before.holds(best):
            folder.adopt(checkpoints / best.file_name)
