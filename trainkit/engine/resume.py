"""Resumes a run: finds the checkpoint and the run folder, and reports what differs from before."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.checkpoint.content import read_run
from trainkit.checkpoint.folder import CheckpointFolder, run_id_of
from trainkit.engine import run_folder
from trainkit.engine.build import build
from trainkit.engine.changes import Redefinitions, SettingChange, flat, setting_changes, watched_by, without_moves
from trainkit.engine.environment import conditions
from trainkit.engine.every_run import metrics_file
from trainkit.engine.every_run.saving import facts_of, restore
from trainkit.engine.fingerprint import other_data
from trainkit.engine.folder_lock import lock
from trainkit.engine.identity import CHECKPOINTS, Identity, Origin, identity_of, is_of_the_future, run_folder_at
from trainkit.engine.saved_recipe import other_packages, recipe_then, resolve_saved
from trainkit.engine.start import (
    ExitCode,
    Report,
    RunOutcome,
    execute,
    finished_before,
    no_report,
    saver_of,
    start_in,
    warn_of_repeats,
)
from trainkit.engine.variables import changed_since
from trainkit.errors import CheckpointError, RecipeError, TrainkitError
from trainkit.groups.plan import GroupPlan, RunLength, plan_groups
from trainkit.groups.resuming import (
    CHOICES,
    Choice,
    ResumedGroup,
    ResumePoint,
    SavedGroup,
    is_ambiguous,
    rates_per_epoch,
    read_saved_group,
    resume_group,
)
from trainkit.recipe.group_epochs import declared_groups
from trainkit.recipe.origin import dotted
from trainkit.recipe.references import variables
from trainkit.recipe.resolve import resolve
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.contracts import Monitor
    from trainkit.engine.run import Run
    from trainkit.recipe.resolve import Resolved
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
    extra: Mapping[str, object] | None = None,
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
        extra: Further live parts, which are called last.
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
        begin = _choose(path, epoch, console, locks)
        locked()
        resolved = _resolve(recipe, begin, sets, allow_code)
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
            return start_in(begin.folder, resolved, console, is_new=False, report=report)
        return _resume_from(
            begin, begin.file, begin.saved, resolved, console, locks, on_extend, allow_code, extra, report
        )


def _resume_from(
    begin: _Beginning,
    file: Path,
    saved: Mapping[str, Any],
    resolved: Resolved,
    console: Console,
    locks: contextlib.ExitStack,
    on_extend: Choice | None,
    allow_code: AllowCode,
    extra: Mapping[str, object] | None,
    report: Report,
) -> RunOutcome | ExitCode:
    changes = _changes(saved, resolved)
    why_nothing_is_left = _nothing_left(resolved, saved, changes)
    if why_nothing_is_left is not None:
        if not begin.in_place or begin.folder is None or run_folder.is_finished(begin.folder):
            console.say(
                f"{file}: {why_nothing_is_left}; nothing is left to do{_how_to_continue(resolved.recipe, saved)}"
            )
            doubts: Sequence[str] = saved.get("doubts", ())
            if begin.in_place and begin.folder is not None:
                doubts = run_folder.doubts(begin.folder)
            return finished_before(doubts, console)
        console.say(f"{file}: {why_nothing_is_left}; the end of the run is made up for")
    then, is_complete = recipe_then(saved["recipe"], saved["components"], resolved, allow_code)
    if not is_complete:
        console.say(f"the recipe in {file} cannot be read any more; what it has in common with this one is compared")
        for line in other_packages(saved["components"]):
            console.say(f"  {line}")
    if on_extend is None:
        _ask_early(resolved.recipe, then, saved)
    origin = Origin(str(file), run_id_of(saved), saved["epoch"], saved["step"])
    if begin.in_place and begin.folder is not None:
        folder = begin.folder
    else:
        locks.close()
        after = identity_of(begin.folder).created if begin.folder is not None else ""
        folder = locks.enter_context(run_folder.created(resolved, origin, after, on_extend))
    try:
        run = build(resolved, folder, finished=(saved["epoch"], saved["epoch_step"]))
        for name, part in (extra or {}).items():
            run.add(name, part)
        plans = run.groups.plans
        old = _saved_groups(then, saved, {name: _name_then(name, run, saved) for name in plans})
        changes = without_moves(changes, resolved.recipe, saved.get("fingerprint") or {}, run.fingerprint)
        if why_nothing_is_left is None and (why_nothing_is_left := _nothing_left(resolved, saved, changes)) is not None:
            console.say(f"{file}: {why_nothing_is_left}; the end of the run is made up for")
        news_of_data = [
            *_other_facts(saved.get("facts"), facts_of(run)),
            *other_data(saved.get("fingerprint") or {}, run.fingerprint),
        ]
        redefined = Redefinitions(changes, news_of_data, resolved.recipe)
        forgotten = dict(_forgotten_memories(old, plans, redefined, then.monitor))
        groups = _resumed_groups(plans, {**old, **forgotten}, _point(run, saved), on_extend)
        loaded = restore(run, saved, groups)
        run.state.redefined = redefined.why
        if not begin.in_place:
            _adopt_best(run, file.parent)
    except BaseException:
        if not begin.in_place:
            run_folder.discard(folder)  # nothing was run in it
        raise
    if why_nothing_is_left is not None:
        run.state.stop_reason = saved.get("stop_reason")
    saver_of(run).newest = file
    if begin.in_place:
        run_folder.describe(folder, resolved, run.identity, origin, on_extend)
    if file.parent.name == CHECKPOINTS and _is_history_of(saved, file.parent.parent):
        is_cut = metrics_file.cut_back(file.parent.parent, saved["epoch"], run.state.evaluated_step, into=folder)
        if is_cut and begin.in_place:
            warn_of_repeats(run, console)
    console.log_to(folder / run_folder.LOG)
    console.say(f"run folder: {folder}")
    console.say(f"resuming from {file}: {saved['epoch']} epochs, {saved['step']} steps finished")
    forgetting = (f"group {name}: its schedule forgets the values so far" for name in forgotten)
    news = run_changes(saved, run, changes, news_of_data)
    for line in (*news, *forgetting, *group_changes(run, saved, old, groups)):
        console.say(f"  {line}")
    for names, what in ((loaded.fresh, "start without optimizer state"), (loaded.unused, "no longer exist")):
        if names:
            console.say(f"  parameters that {what}: {some_of(names)}")
    return execute(run, console, report)


def _resolve(recipe: Path | Resolved | None, begin: _Beginning, sets: Sequence[str], allow_code: AllowCode) -> Resolved:
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


def _changes(saved: Mapping[str, Any], resolved: Resolved) -> list[SettingChange]:
    return setting_changes(saved["recipe"], resolved, changed_since(saved, resolved.tree))


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


# ---- where the run begins -------------------------------------------------------------------------------------------


@attrs.frozen
class _Beginning:
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


def _choose(path: Path, epoch: int | None, console: Console, locks: contextlib.ExitStack) -> _Beginning:
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
        return _Beginning(given, read_run(given), None, in_place=False)
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
        return _Beginning(*newest, folder, True, run_folder.unsaved_start(folder, newest[1]))
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
    return _Beginning(file, saved, folder, in_place)


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


def _without_checkpoint(folder: Path) -> _Beginning:
    """Return how a run begins that was killed before its first checkpoint.

    Raises:
        CheckpointError: It began from a checkpoint of another run, which is no longer there.
    """
    identity = identity_of(folder)
    origin = identity.begun_from
    if origin is None:
        return _Beginning(None, None, folder, True, identity)
    named = Path(origin.checkpoint)
    beside = folder.parent / (origin.run or "") / CHECKPOINTS / named.name  # the runs may have been moved
    file = next((each for each in (named, beside) if each.is_file()), None)
    saved = None if file is None else read_run(file)
    if file is None or saved is None or (saved["epoch"], saved["step"]) != (origin.epoch, origin.step):
        raise CheckpointError(
            f"{folder} has no checkpoint yet, and {named}, from which it began, is not there any more; "
            "give another run folder or checkpoint"
        )
    return _Beginning(file, saved, folder, True, identity)


def _is_history_of(saved: Mapping[str, Any], folder: Path) -> bool:
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


# ---- parameter groups -----------------------------------------------------------------------------------------------


def _ask_early(recipe: Recipe, then: Recipe, saved: Mapping[str, Any]) -> None:
    """Ask for ``on_extend`` before the data is opened, if the settings alone show that it is needed.

    Raises:
        RecipeError: ``on_extend`` must be given.
    """
    names = declared_groups(recipe)
    if names is not None and recipe.data == then.data:
        old = _saved_groups(then, saved, {name: name if name in saved["groups"] else None for name in names})
        point = ResumePoint.of(saved, saved["steps_per_epoch"])
        length = RunLength.of(recipe.run, saved["steps_per_epoch"], saved["epoch"], saved["epoch_step"])
        _resumed_groups(plan_groups(recipe, names, length), old, point, on_extend=None)


def _resumed_groups(
    new: Mapping[str, GroupPlan],
    old: Mapping[str, SavedGroup | None],
    point: ResumePoint,
    on_extend: Choice | None,
) -> dict[str, ResumedGroup]:
    """Return how each group continues.

    Raises:
        RecipeError: ``on_extend`` must be given; the message shows the learning rates that each choice gives.
    """
    if on_extend is None:
        open_questions = [name for name in new if is_ambiguous(new[name], old[name], point)]
        if open_questions:
            raise RecipeError(_question(new, old, point, open_questions))
    choice: Choice = on_extend or "stretch"
    return {name: resume_group(plan, old[name], point, choice) for name, plan in new.items()}


def _point(run: Run, saved: Mapping[str, Any]) -> ResumePoint:
    return ResumePoint.of(saved, run.state.steps_per_epoch)


def _saved_groups(
    then: Recipe, saved: Mapping[str, Any], names: Mapping[str, str | None]
) -> dict[str, SavedGroup | None]:
    """Return each group as it was saved in the checkpoint.

    Args:
        then: The checkpoint's recipe.
        saved: The checkpoint.
        names: Group -> its name in the checkpoint; None: it is not there.
    """
    length = RunLength.of(then.run, saved["steps_per_epoch"], saved["epoch"], saved["epoch_step"])
    written = plan_groups(then, dict.fromkeys(saved["groups"], True), length)
    return {
        name: None if before is None else read_saved_group(written[before], saved["groups"][before])
        for name, before in names.items()
    }


def _name_then(name: str, run: Run, saved: Mapping[str, Any]) -> str | None:
    """Return a group's name in the checkpoint; a group with the same parameters is the same group."""
    if name in saved["groups"]:
        return name
    parameters = sorted(run.state.groups[name].parameters)
    same = (n for n, group in saved["groups"].items() if parameters and sorted(group["parameters"]) == parameters)
    return next(same, None)


def _forgotten_memories(
    old: Mapping[str, SavedGroup | None], new: Mapping[str, GroupPlan], redefined: Redefinitions, monitor: Monitor
) -> Iterator[tuple[str, SavedGroup]]:
    """Yield the groups whose schedule remembers values that cannot be compared with those to come, without these.

    Args:
        old: Each group as it was saved.
        new: The groups' plans from now on.
        redefined: Which values mean something else.
        monitor: The monitor of the checkpoint's recipe.
    """
    for name, group in old.items():
        if group is None or not group.memory:
            continue
        now = next((phase.scheduler for phase in new[name].phases if phase.name == group.phase.name), None)
        if type(now) is not type(group.phase.scheduler):
            continue  # a schedule of another class begins without a memory
        before, after = watched_by(group.phase.scheduler, monitor), watched_by(now, redefined.recipe.monitor)
        if before != after or any(redefined.why(value) for value, _ in after):
            yield name, group._replace(memory=now.forget(group.memory))


def _adopt_best(run: Run, checkpoints: Path) -> None:
    """Bring the best checkpoints so far into the new folder of a run that is resumed from an earlier checkpoint."""
    before, folder = CheckpointFolder(checkpoints), CheckpointFolder(run.state.folder / CHECKPOINTS)
    for best in saver_of(run).all_best:
        if before.holds(best):
            folder.adopt(checkpoints / best.file_name)


def _question(
    new: Mapping[str, GroupPlan], old: Mapping[str, SavedGroup | None], point: ResumePoint, names: Sequence[str]
) -> str:
    meaning = {
        "stretch": "as if the new length or schedule had been used from the beginning",
        "hold": "the old curve, then its last value; a new schedule starts at the current rate",
        "restart": "the recipe's rate and schedule from the beginning, over the remaining epochs",
    }
    lines = [
        "the run's length or a schedule has changed, and the learning rates can continue in three ways; choose one:"
    ]
    for choice in CHOICES:
        rates = []
        for name in names:
            lr = rates_per_epoch(resume_group(new[name], old[name], point, choice), point)
            rates.append(f"{name} {lr[0]:.4g} now, {lr[-1]:.4g} at the end")
        lines.append(f"  --on-extend {choice:8} {'; '.join(rates)}   ({meaning[choice]})")
    return "\n".join(lines)


# ---- what is reported before the run continues ----------------------------------------------------------------------


def run_changes(
    saved: Mapping[str, Any], run: Run, changes: Sequence[SettingChange], news_of_data: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each setting, version, fact of the data and condition that has changed."""
    yield from map(str, changes)
    yield from news_of_data
    packages = {(used["where"], _plain_name(used["use"])): used for used in saved["components"]}
    for part in run.resolved.used:
        was = packages.get((part.where, _plain_name(part.use)))
        if was is not None and was["package"] != part.package:
            yield f"warning: {part.where}: {part.use} is from {part.package} {part.version}, was from {was['package']}"
    before = {used["package"]: used["version"] for used in saved["components"]}
    now = {used.package: used.version for used in run.resolved.used}
    before |= saved["conditions"]
    now |= conditions(run.state.context.device, run.recipe)
    for name, value in before.items():
        if name in now and now[name] != value:
            yield f"warning: {name} is {now[name]}, was {value}: the run may not be the same bit for bit"


def _plain_name(use: str) -> str:
    return use if ":" in use else use.rpartition("/")[2]


def _other_facts(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    if before is None or now is None:
        return  # the checkpoint is older than facts, or the data has none
    was, here = dict(flat(before)), dict(flat(json.loads(json.dumps(now))))
    for key in sorted(was.keys() | here.keys()):
        if was.get(key) != here.get(key):
            yield f"warning: the data has changed: its {dotted(key)} is {here.get(key)}, was {was.get(key)}"


def group_changes(
    run: Run,
    saved: Mapping[str, Any],
    old: Mapping[str, SavedGroup | None],
    groups: Mapping[str, ResumedGroup],
) -> Iterator[str]:
    """Yield a line for each change of a parameter group.

    Args:
        run: The restored run.
        saved: The checkpoint.
        old: Each group as it was saved in the checkpoint.
        groups: Each group as it continues.
    """
    point = _point(run, saved)
    kept = set()
    for name, resumed in groups.items():
        then = _name_then(name, run, saved)
        kept.add(then)
        if then is None:
            yield f"group {name}: new"
        elif then != name:
            yield f"group {name}: was called {then}"
        yield from _rate_changes(name, old[name], resumed, point)
    for name in saved["groups"]:
        if name not in kept:
            yield f"group {name}: no longer exists"


def _rate_changes(name: str, old: SavedGroup | None, resumed: ResumedGroup, point: ResumePoint) -> Iterator[str]:
    phase = resumed.plan.phase_at(point.epoch)
    now = rates_per_epoch(resumed, point)[0] if point.epoch in phase.epochs else 0.0
    if old is None:
        if phase.epochs.start == point.epoch:
            yield f"group {name}: starts now, lr {now:.6g}"
        return
    if phase.name != old.phase.name:
        yield f"group {name}: phase {phase.name} starts now, lr {now:.6g}"
        return
    was = old.phase.rate(point.epoch, point.epoch_step, point.steps_per_epoch, old.memory).lr
    schedules = [type(each.scheduler).__name__ for each in (old.phase, phase)]
    if not math.isclose(was, now, rel_tol=1e-9) or schedules[0] != schedules[1]:
        change = f", {schedules[0]} -> {schedules[1]}" if schedules[0] != schedules[1] else ""
        yield f"group {name}: lr in epoch {point.epoch}: {was:.6g} -> {now:.6g}{change}"
