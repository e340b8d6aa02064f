"""Plans when each parameter group trains, with which optimizer and learning rate, from the recipe alone.

A group has one phase, or several that follow each other (``[groups.object.then.finish]``). Each phase has a learning
rate, a schedule with its own clock, and an optimizer:

    epoch        0          start                        then.finish.start_epoch          stop
    group        frozen     │ first phase                │ phase "finish"                 │ frozen
    clock                   0, 1, 2, …                   0, 1, 2, …
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from trainkit.contracts import Memory, Optimizer, Point, Scheduler
from trainkit.errors import RecipeError
from trainkit.groups.schedule import point
from trainkit.recipe.group_epochs import ActiveEpochs, active_epochs, idle_stretches, stretches_in_words
from trainkit.recipe.root import GroupSettings

if TYPE_CHECKING:
    from trainkit.recipe.root import PhaseSettings, Recipe, RunSettings

SHARED = "all"
"""Name of the torch optimizer that is shared by all groups without an optimizer of their own."""


class RunLength(NamedTuple):
    """How long a run lasts.

    Attributes:
        epochs: Number of epochs; the last one may be cut short by ``steps``.
        steps: Number of optimizer steps; None: the length is given in epochs.
    """

    epochs: int
    steps: int | None = None

    @classmethod
    def of(cls, run: RunSettings, steps_per_epoch: int, epoch: int = 0, epoch_step: int = 0) -> RunLength:
        """Return the length that a recipe sets.

        Args:
            run: The recipe's ``[run]``.
            steps_per_epoch: Optimizer steps in an epoch.
            epoch: Number of finished epochs, if the run is resumed.
            epoch_step: Number of finished steps at the end of these epochs, which may have been cut short.
        """
        if run.steps is None:
            return cls(run.num_epochs(steps_per_epoch))
        return cls(epoch + ceil(max(run.steps - epoch_step, 0) / steps_per_epoch), run.steps)


class Clock(NamedTuple):
    """A phase's own clock, which its schedule reads.

    Attributes:
        epoch: The epoch at whose beginning the clock is 0.
        step: Finished optimizer steps of the run at the beginning of that epoch.
        stop: The epoch at which the schedule ends; its last value holds from then on.
        stop_step: The optimizer step at which a schedule by steps ends; None: the step at which epoch ``stop`` begins.
    """

    epoch: int
    step: int
    stop: int
    stop_step: int | None = None

    def read(self, by: Literal["epoch", "step"], epoch: int, step: int, steps_per_epoch: int) -> tuple[int, int]:
        """Return the time on the clock and the time at the schedule's end, both in ticks."""
        if by == "epoch":
            return epoch - self.epoch, self.stop - self.epoch
        if self.stop_step is not None:
            return step - self.step, self.stop_step - self.step
        return step - self.step, (self.stop - self.epoch) * steps_per_epoch


@attrs.frozen
class Phase:
    """Consecutive epochs in which a group has one optimizer, one learning rate and one schedule.

    Attributes:
        epochs: The epochs of the phase; ``start`` None: the group stays frozen.
        lr: Learning rate before the schedule.
        scheduler: The schedule.
        optimizer: Settings of the optimizer.
        optimizer_name: Name of the torch optimizer: `SHARED`, or the name of one that the group does not share.
        options: Optimizer settings that the group overrides.
        name: The phase's key below ``then``; "" for the first phase.
        stop_step: The optimizer step at which the run ends during this phase; None: the phase ends with its epochs.
        clock: The clock that the schedule reads; None: the phase has not started.
    """

    epochs: ActiveEpochs
    lr: float
    scheduler: Scheduler
    optimizer: Optimizer
    optimizer_name: str = SHARED
    options: Mapping[str, Any] = attrs.Factory(dict)
    name: str = ""
    stop_step: int | None = None
    clock: Clock | None = None

    def clock_or_planned(self, steps_per_epoch: int) -> Clock:
        """Return the phase's clock.

        If the phase has not started yet, assume that every epoch before it has ``steps_per_epoch`` steps.
        """
        start = self.epochs.start or 0
        return self.clock or self.clock_at(start, start * steps_per_epoch)

    def clock_at(self, epoch: int, step: int) -> Clock:
        """Return a clock for this phase that is 0 at the beginning of an epoch, after ``step`` finished steps."""
        return Clock(epoch, step, self.epochs.stop, self.stop_step)

    def rate(self, epoch: int, step: int, steps_per_epoch: int, memory: Memory) -> Point:
        """Return the learning rate (and momentum) at a point of the run at which the group trains.

        Args:
            epoch: Number of the current epoch, from 0.
            step: Finished optimizer steps of the run.
            steps_per_epoch: Optimizer steps in each epoch.
            memory: Memory of the phase's schedule.
        """
        clock = self.clock_or_planned(steps_per_epoch)
        t, horizon = clock.read(self.scheduler.by, epoch, step, steps_per_epoch)
        t = max(t, 0)  # the planned start of a later phase does not know of steps that are skipped before it
        return point(self.scheduler, min(t, horizon - 1), horizon, self.lr, memory)

    def depends_on_length(self, steps_per_epoch: int) -> bool:
        """Return whether the schedule would have another rate at its end if it were twice as long."""
        clock = self.clock_or_planned(steps_per_epoch)
        _, horizon = clock.read(self.scheduler.by, clock.epoch, clock.step, steps_per_epoch)
        if self.epochs.start is None or horizon < 1:
            return False
        here, longer = (point(self.scheduler, horizon - 1, horizon * n, self.lr, {}).lr for n in (1, 2))
        return abs(here - longer) > 1e-12 * max(here, longer)


@attrs.frozen
class GroupPlan:
    """When and how one group trains, by the recipe alone unless a resume changed it.

    Attributes:
        phases: The phases in order, at least one; each ends where the next one starts.
    """

    phases: tuple[Phase, ...]

    @property
    def epochs(self) -> ActiveEpochs:
        """The epochs in which the group trains."""
        return ActiveEpochs(self.phases[0].epochs.start, self.phases[-1].epochs.stop)

    def phase_at(self, epoch: int) -> Phase:
        """Return the phase of an epoch; before the group's start, the first phase."""
        started = [phase for phase in self.phases if phase.epochs.start is not None and phase.epochs.start <= epoch]
        return started[-1] if started else self.phases[0]

    def with_phase(self, changed: Phase) -> GroupPlan:
        """Return the plan with the phase of the same name replaced."""
        return GroupPlan(tuple(changed if phase.name == changed.name else phase for phase in self.phases))


def plan_groups(recipe: Recipe, trains: Mapping[str, bool], length: RunLength | None = None) -> dict[str, GroupPlan]:
    """Return the plan of every group of a model.

    Args:
        recipe: The whole run.
        trains: Group -> whether it trains if no ``start_epoch`` is set.
        length: How long the run lasts; None: as the recipe says, with the steps per epoch that `check` assumes.

    Raises:
        RecipeError: No group trains in one of the epochs.
    """
    length = length or RunLength(recipe.run.num_epochs(), recipe.run.steps)
    known = active_epochs(recipe, trains, length.epochs)
    if idle := idle_stretches(known.values(), length.epochs):
        raise RecipeError(
            f"no parameter group trains {stretches_in_words(idle)}; the model's groups are {', '.join(known)}: set "
            "start_epoch or a later stop_epoch for one of them"
        )
    return {name: _plan(recipe, name, span, length) for name, span in known.items()}


def _plan(recipe: Recipe, name: str, span: ActiveEpochs, length: RunLength) -> GroupPlan:
    settings = recipe.groups.get(name, GroupSettings())
    changes = sorted(settings.then.items(), key=lambda each: each[1].start_epoch)
    if span.start is not None:
        changes = [(key, change) for key, change in changes if change.start_epoch < span.stop]
    ends = [*(change.start_epoch for _, change in changes), span.stop]
    own = settings.optimizer is not None or any(change.optimizer is not None for _, change in changes)
    optimizer = settings.optimizer or recipe.optimizer
    first = Phase(
        epochs=ActiveEpochs(span.start, ends[0]),
        stop_step=_stop_step(ends[0], length),
        lr=_lr(settings, optimizer, None),
        scheduler=settings.scheduler or recipe.scheduler,
        optimizer=optimizer,
        optimizer_name=name if own else SHARED,
        options=settings.options,
    )
    phases = [first]
    for (key, change), end in zip(changes, ends[1:], strict=True):
        before = phases[-1]
        phases.append(
            Phase(
                name=key,
                epochs=ActiveEpochs(None if span.start is None else change.start_epoch, end),
                stop_step=_stop_step(end, length),
                lr=_lr(change, change.optimizer or before.optimizer, before),
                scheduler=change.scheduler or first.scheduler,
                optimizer=change.optimizer or before.optimizer,
                optimizer_name=before.optimizer_name if change.optimizer is None else f"{name}.{key}",
                options=before.options if change.optimizer is None else {},
            )
        )
    return GroupPlan(tuple(phases))


def _stop_step(stop: int, length: RunLength) -> int | None:
    return length.steps if stop == length.epochs else None


def _lr(settings: GroupSettings | PhaseSettings, optimizer: Optimizer, before: Phase | None) -> float:
    if settings.lr is not None:
        return settings.lr
    if settings.lr_factor is not None:
        return settings.lr_factor * optimizer.lr
    return optimizer.lr if before is None or settings.optimizer is not None else before.lr
