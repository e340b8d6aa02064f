"""Finds parts that wait longer for a value to improve than the run lasts, so that they can never act.

    epoch                       0    1    2    3    4        of 5
    value, every second epoch        v         v    v        the last epoch always has one
    can a part still act?       yes  yes  yes  yes  no       nothing trains after the last epoch
      with validation.beside    yes  yes  yes  no   no       which acts an epoch later

How long a part waits, it says itself (`Component.waits`); here is counted which values it gets to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import attrs

from trainkit.contracts import Component, Scheduler, Wait
from trainkit.recipe.group_epochs import ActiveEpochs, active_epochs, declared_groups
from trainkit.recipe.group_rules import schedules
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import Recipe
from trainkit.recipe.tables import walk_settings

_Watching = tuple[Where, Component, dict[str, ActiveEpochs]]
"""A part, its place, and the epochs in which it can act: for a schedule those of each group, else all, under ""."""

_MOST_EPOCHS = 20_000
"""How many epochs are looked at, in some milliseconds; what needs more is taken to be able to act."""

_MOST_TRIES = 1000
"""How many smaller settings are tried for one with which a part could act."""


def never_acting(recipe: Recipe, steps_per_epoch: int | None = None) -> Iterator[Finding]:
    """Yield a warning for each part that can never act, and a note for a schedule that cannot in some groups.

    Args:
        recipe: The settings.
        steps_per_epoch: Optimizer steps in an epoch; None: not known. What it may depend on is then taken to be as
            good as it can be, so that nothing is reported that might act.
    """
    for where, part, spans in _watching(recipe, steps_per_epoch):
        for number, wait in enumerate(part.waits(recipe)):
            metric = wait.metric or recipe.monitor.metric
            seen = {
                whose: _Watch(recipe, metric, _within(span, wait), steps_per_epoch) for whose, span in spans.items()
            }
            idle = {whose: watch for whose, watch in seen.items() if watch.action(wait) is None}
            if not idle or (_is_never_validated(recipe) and metric.partition("/")[0] in recipe.evaluated_splits()):
                continue
            setting: Where = (*where, *wait.setting.split("."))
            value = getattr(part, wait.setting, "")
            if len(idle) < len(seen):
                short = ", ".join(f"{whose} ({watch.in_words})" for whose, watch in idle.items())
                message = f"{wait.setting} {value} is too long to {wait.action} of {short}"
                yield Finding(message, setting, "note")
                continue
            watch = max(idle.values(), key=lambda each: each.num_values)
            needed = _values_needed(wait, recipe, metric, watch.span.start)
            last = "two epochs" if acts_later(recipe) else "epoch"
            message = (
                f"{type(part).__name__} can never {wait.action}: {wait.setting} {value} needs {needed} before the last "
                f"{last}, and {watch.in_words} {'has' if watch.is_one else 'have'} {watch.num_values}"
            )
            ways = _ways_out(recipe, where, part, number, watch, steps_per_epoch)
            yield Finding(message, setting, "warning", hint=f"paste {', or '.join(ways)}" if ways else "")


@attrs.frozen
class _Watch:
    """The values that a part sees in some epochs of a run."""

    recipe: Recipe
    metric: str
    span: ActiveEpochs
    steps_per_epoch: int | None

    @property
    def in_words(self) -> str:
        start, stop = self.span.start or 0, self.span.stop
        if start == 0 and stop == self._num_epochs:
            return "the only epoch of the run" if self.is_one else f"the {stop} epochs of the run"
        if start == 0:
            return "the first epoch" if self.is_one else f"the first {stop} epochs"
        first = "the first" if start == 1 else f"the first {start}"
        return f"the epoch after {first}" if self.is_one else f"the {stop - start} epochs after {first}"

    @property
    def is_one(self) -> bool:
        """Whether there is only one epoch, or none."""
        return self.span.stop - (self.span.start or 0) <= 1

    @property
    def num_values(self) -> int:
        """Number of values after which something is left to act on."""
        return sum(self._leaves_something(epoch) for epoch in self.epochs())

    def _leaves_something(self, epoch: int) -> bool:
        return epoch + 1 + acts_later(self.recipe) < self.span.stop

    @property
    def _num_epochs(self) -> int:
        return self.recipe.run.num_epochs(self.steps_per_epoch or 1)

    def epochs(self) -> Iterator[int]:
        """Yield the epochs that end with a value."""
        return (each for each in range(self.span.start or 0, self.span.stop) if self._has_value(each))

    def action(self, wait: Wait) -> int | None:
        """Return the epoch by whose value a part acts while something is left to act on; None: it cannot."""
        start = self.span.start or 0
        if self.span.stop - start > _MOST_EPOCHS:
            return start
        epoch = wait.acts(self.epochs())
        return epoch if epoch is not None and self._leaves_something(epoch) else None

    def _has_value(self, epoch: int) -> bool:
        split, _, name = self.metric.partition("/")
        finished, validation = epoch + 1, self.recipe.validation
        if split not in self.recipe.evaluated_splits() or finished == self._num_epochs:
            return True
        by_epochs = validation.every_epochs > 0 and finished % validation.every_epochs == 0
        return (by_epochs or self._is_due_by_steps(epoch)) and _is_measured(self.recipe, name, finished)

    def _is_due_by_steps(self, epoch: int) -> bool:
        every, steps = self.recipe.validation.every_steps, self.steps_per_epoch
        if steps is None and self.recipe.run.steps is not None:
            steps = 1  # the most epochs that the run can have
        return every > 0 and (steps is None or (epoch + 1) * steps // every > epoch * steps // every)


def acts_later(recipe: Recipe) -> int:
    """Return how many epochs after the end of an epoch its values take effect."""
    return int(recipe.validation.beside)


def _is_never_validated(recipe: Recipe) -> bool:
    """Return whether there is no validation before the end of the run, of which another rule warns."""
    return not recipe.validation.every_epochs and not recipe.validation.every_steps


def _is_measured(recipe: Recipe, name: str, finished: int) -> bool:
    """Return whether a validation has a value; for one that no metric states, assume that it has."""
    stated = [m for m in recipe.metrics.values() if any(fnmatchcase(name, each) for each in m.names() or ())]
    return not stated or any(metric.is_measured_after(finished) for metric in stated)


def _watching(recipe: Recipe, steps_per_epoch: int | None) -> Iterator[_Watching]:
    """Yield each part of a recipe that may wait for something."""
    num_epochs = recipe.run.num_epochs(steps_per_epoch or 1)
    for where, part, _ in walk_settings(recipe):
        if isinstance(part, Component) and not isinstance(part, Scheduler):
            yield where, part, {"": ActiveEpochs(0, num_epochs)}
    trains = declared_groups(recipe)
    if trains is None:  # known after the model is built: there may be a group that trains all the time
        trains = dict.fromkeys((*recipe.groups, ""), True)
    found: dict[Where, tuple[Scheduler, dict[str, ActiveEpochs]]] = {}
    for name, epochs in active_epochs(recipe, trains, num_epochs).items():
        for table, holder, scheduler, span in schedules(recipe, name, epochs):
            if span.start is None or span.start >= span.stop:
                continue
            start = span.start + _epochs_of_warmup(scheduler, steps_per_epoch)
            whose = f"group {name}" + (f", phase {table[-1]}" if "then" in table else "")
            found.setdefault(holder, (scheduler, {}))[1][whose] = ActiveEpochs(start, span.stop)
    for holder, (scheduler, spans) in found.items():
        yield (*holder, "scheduler"), scheduler, spans


def _epochs_of_warmup(scheduler: Scheduler, steps_per_epoch: int | None) -> int:
    """Return the number of epochs whose values a schedule does not see, at least."""
    if scheduler.by == "epoch":
        return scheduler.warmup
    return scheduler.warmup // steps_per_epoch if steps_per_epoch else 0


def _within(span: ActiveEpochs, wait: Wait) -> ActiveEpochs:
    stop = span.stop if wait.stop is None else min(span.stop, wait.stop)
    return ActiveEpochs(max(span.start or 0, wait.start), stop)


def _values_needed(wait: Wait, recipe: Recipe, metric: str, start: int | None) -> str:
    """Return how many values a part would have to see, in words."""
    stop = (start or 0) + _MOST_EPOCHS
    longer = _lasting(recipe, stop)
    seen = 0

    def counted() -> Iterator[int]:
        nonlocal seen
        for epoch in _Watch(longer, metric, ActiveEpochs(start, stop), None).epochs():
            seen += 1
            yield epoch

    return f"{seen} values of {metric}" if wait.acts(counted()) is not None else f"more values of {metric}"


def _lasting(recipe: Recipe, epochs: int) -> Recipe:
    longer: Recipe = _changed(recipe, run=_changed(recipe.run, epochs=epochs, steps=None))
    return longer


def _changed(settings: Any, **changes: Any) -> Any:
    return attrs.evolve(settings, **changes)


# ---- what to do -----------------------------------------------------------------------------------------------------


def _ways_out(
    recipe: Recipe, where: Where, part: Component, number: int, watch: _Watch, steps_per_epoch: int | None
) -> list[str]:
    """Return lines, each of which lets a part act: a smaller setting, more validations, a longer run."""
    wait = list(part.waits(recipe))[number]
    ways = []
    if (smaller := _smaller_setting(recipe, part, number, watch)) is not None:
        ways.append(f"{wait.setting} = {smaller}")
    validation = recipe.validation
    if validation.every_epochs != 1:
        often = _changed(recipe, validation=_changed(validation, every_epochs=1))
        if _acts(often, where, number, steps_per_epoch):
            ways.append("every_epochs = 1 in [validation]")
    if recipe.run.epochs is not None and (epochs := _long_enough(recipe, where, number, steps_per_epoch)) is not None:
        ways.append(f"epochs = {epochs} in [run]")
    return ways


def _acts(recipe: Recipe, where: Where, number: int, steps_per_epoch: int | None) -> bool:
    for place, part, spans in _watching(recipe, steps_per_epoch):
        if place == where:
            wait = list(part.waits(recipe))[number]
            metric = wait.metric or recipe.monitor.metric
            watches = (_Watch(recipe, metric, _within(span, wait), steps_per_epoch) for span in spans.values())
            return any(watch.action(wait) is not None for watch in watches)
    return False


def _smaller_setting(recipe: Recipe, part: Component, number: int, watch: _Watch) -> int | None:
    """Return the largest setting that lets a part act in the first half of its epochs, if there is one, or later."""
    name = list(part.waits(recipe))[number].setting
    value = getattr(part, name, None)
    if not isinstance(value, int):
        return None
    start, stop = watch.span.start or 0, watch.span.stop
    most = min(value - 1, watch.num_values, _MOST_TRIES)
    late = None
    for smaller in range(most, -1, -1):
        with suppress(ValueError):  # the setting may have a least value
            wait = list(_changed(part, **{name: smaller}).waits(recipe))[number]
            epoch = watch.action(wait)
            if epoch is not None and 2 * (epoch + 1 - start) <= stop - start + 1:
                return smaller
            late = smaller if late is None and epoch is not None else late
    return late


def _long_enough(recipe: Recipe, where: Where, number: int, steps_per_epoch: int | None) -> int | None:
    """Return the fewest epochs of a run in which a part can act."""
    short, long = recipe.run.num_epochs(), recipe.run.num_epochs()
    while not _acts(_lasting(recipe, long), where, number, steps_per_epoch):
        if long == _MOST_EPOCHS:
            return None
        short, long = long, min(2 * long + 1, _MOST_EPOCHS)
    while long - short > 1:
        middle = (short + long) // 2
        if _acts(_lasting(recipe, middle), where, number, steps_per_epoch):
            long = middle
        else:
            short = middle
    return long
