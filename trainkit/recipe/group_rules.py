"""Rules about parameter groups: their patterns, and the epochs of the groups and of their phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from trainkit.contracts import Scheduler
from trainkit.errors import did_you_mean
from trainkit.recipe.group_epochs import (
    ActiveEpochs,
    active_epochs,
    declared_groups,
    idle_stretches,
    stretches_in_words,
    warmup_problem,
)
from trainkit.recipe.parameter_patterns import takes_rest
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import GroupSettings, Recipe
from trainkit.words import number_of

Rule = Callable[[Recipe], Iterator[Finding]]
"""Yields what it finds in a recipe. If it needs something that could not be read, it raises AttributeError."""


def group_rules(recipe: Recipe) -> list[Rule]:
    """Return the rules for the groups of a recipe."""
    rules: list[Rule] = [_patterns, _unknown_groups, _idle_epochs, _warm_ups]
    for name in getattr(recipe, "groups", ()):
        rules += [partial(_start_and_stop, name=name), partial(_phases, name=name)]
    return rules


def _patterns(recipe: Recipe) -> Iterator[Finding]:
    without = [name for name, group in recipe.groups.items() if group.parameters is None]
    if len(without) < len(recipe.groups):
        for name in without:
            yield Finding(
                "has no parameters, but other groups have: if one has patterns, all must",
                ("groups", name),
                at="key",
                hint='parameters = "rest" takes all that no other group names',
            )
    rest = [name for name, group in recipe.groups.items() if group.parameters and takes_rest(group.parameters)]
    for name in rest[1:]:
        message = f"takes the rest of the parameters, as groups.{rest[0]} does; only one group can"
        yield Finding(message, ("groups", name, "parameters"))


def _unknown_groups(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    if declared is None:
        return
    for name in recipe.groups:
        if name not in declared:
            yield Finding("the model has no such group", ("groups", name), at="key", hint=did_you_mean(name, declared))


def _start_and_stop(recipe: Recipe, name: str) -> Iterator[Finding]:
    where = ("groups", name)
    group, epochs = recipe.groups[name], _most_epochs(recipe)
    start = group.start_epoch
    if start is not None and start >= epochs:
        yield Finding(f"the run ends before: it has {_epochs_in_words(recipe)}", (*where, "start_epoch"))
    stop = group.stop_epoch
    if stop is not None and start and stop <= start:
        yield Finding(f"must come after the start: its start_epoch is {start}", (*where, "stop_epoch"))
    elif stop is not None and stop > epochs and recipe.run.steps is None:
        yield Finding(f"the run ends before, after {number_of(epochs, 'epoch')}", (*where, "stop_epoch"), "note")
    for key in ("lr", "lr_factor"):
        if getattr(group, key) == 0:
            yield Finding("the group stays as it is, although it trains", (*where, key), "note")
    declared = declared_groups(recipe)
    if declared is not None and declared.get(name) is False and start is None:
        yield Finding("this group stays frozen, because it has no start_epoch", where, "note", at="key")


def _phases(recipe: Recipe, name: str) -> Iterator[Finding]:
    group, epochs = recipe.groups[name], _most_epochs(recipe)
    trains_at_once = (declared_groups(recipe) or {}).get(name, True)
    start = 0 if group.start_epoch is None and trains_at_once else group.start_epoch
    starts: dict[int, str] = {}
    for key, phase in group.then.items():
        where = ("groups", name, "then", key)
        changes = (getattr(phase, each, "unreadable") for each in ("lr", "lr_factor", "optimizer", "scheduler"))
        if all(change is None for change in changes):
            yield Finding("changes nothing: give it lr, lr_factor, optimizer or scheduler", where, at="key")
        begin = getattr(phase, "start_epoch", None)
        if begin is None:
            continue
        at = (*where, "start_epoch")
        if start is None:
            yield Finding(f"groups.{name} never trains: give it start_epoch", where, at="key")
        elif begin <= start:
            yield Finding(f"must come after the start of the group: its start_epoch is {start}", at)
        if group.stop_epoch is not None and begin >= group.stop_epoch:
            yield Finding(f"the group stops before: its stop_epoch is {group.stop_epoch}", at)
        elif begin >= epochs:  # a shorter run of the same recipe is a run without this phase
            yield Finding(f"the run ends before: it has {_epochs_in_words(recipe)}", at, "note")
        if begin in starts:
            yield Finding(f"the phase {starts[begin]} starts at the same epoch", at)
        starts[begin] = key


def _idle_epochs(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    epochs = _most_epochs(recipe)
    if declared is None or any(_wrong_times(group, epochs) for group in recipe.groups.values()):
        return
    known = active_epochs(recipe, declared, epochs)
    idle = idle_stretches(known.values(), epochs)
    if not idle:
        return
    # The group that stops where the first stretch begins, else the one that starts where it ends.
    begin, end = idle[0]
    stopping = [("groups", name, "stop_epoch") for name, span in known.items() if 0 < span.stop == begin]
    starting = [("groups", name, "start_epoch") for name, span in known.items() if span.start == end]
    where: Where = [*stopping, *starting, ("groups",)][0]
    message = f"no parameter group trains {stretches_in_words(idle)}"
    if recipe.run.steps is None or begin == 0:
        yield Finding(message, where, at="key")
    else:
        yield Finding(f"{message}, if the run lasts that long", where, "note", at="key")


def _warm_ups(recipe: Recipe) -> Iterator[Finding]:
    declared = declared_groups(recipe)
    if declared is None:
        return
    most = _most_epochs(recipe)
    for name, epochs in active_epochs(recipe, declared, most).items():
        for table, holder, scheduler, (start, stop) in schedules(recipe, name, epochs):
            if start is None or start >= stop:
                continue
            ticks = stop - start
            if scheduler.by == "step" or (recipe.run.steps is not None and stop == most):
                # How many steps an epoch has is known when the data is opened, how many the run has is known now.
                if recipe.run.steps is None or scheduler.by == "epoch" or start > 0 or stop < most:
                    continue
                ticks = recipe.run.steps
            if problem := warmup_problem(scheduler, ticks):
                whose = f"group {name}" + (f", phase {table[-1]}" if "then" in table else "")
                message = problem if table == holder else f"{whose}: {problem}"
                yield Finding(message, (*holder, "scheduler", "warmup"))


def schedules(
    recipe: Recipe, name: str, epochs: ActiveEpochs
) -> Iterator[tuple[Where, Where, Scheduler, ActiveEpochs]]:
    """Yield each phase of a group: its table, the table that holds its scheduler, the scheduler, the phase's epochs."""
    group = recipe.groups.get(name, GroupSettings())
    table: Where = ("groups", name)
    holder = table if group.scheduler else ()
    scheduler = group.scheduler or recipe.scheduler
    phases = sorted(group.then.items(), key=lambda item: item[1].start_epoch)
    ends = [*(phase.start_epoch for _, phase in phases), epochs.stop]
    yield table, holder, scheduler, ActiveEpochs(epochs.start, ends[0])
    for (key, phase), end in zip(phases, ends[1:], strict=True):
        start = None if epochs.start is None else phase.start_epoch
        own: Where = (*table, "then", key)
        yield own, own if phase.scheduler else holder, phase.scheduler or scheduler, ActiveEpochs(start, end)


def _most_epochs(recipe: Recipe) -> int:
    """Return how many epochs the run has; if its length is given in steps, as many as it can have."""
    return recipe.run.num_epochs(steps_per_epoch=1)


def _epochs_in_words(recipe: Recipe) -> str:
    epochs = _most_epochs(recipe)
    return f"at most {epochs} epochs, one a step" if recipe.run.steps else number_of(epochs, "epoch")


def _wrong_times(group: GroupSettings, epochs: int) -> bool:
    start = group.start_epoch or 0
    return start >= epochs or (group.stop_epoch is not None and 0 < start >= group.stop_epoch)
