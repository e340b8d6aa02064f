"""Estimates how long a run still takes, from what its epochs took so far.

An epoch costs its steps, whose price depends on which groups train, and the evaluations, pictures and checkpoints that
are due in it, each at the price of those before. So an epoch in which more is due, or in which more groups train, is
expected to take longer as soon as one such epoch has been measured.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from trainkit.state import OF_NO_EPOCH
from trainkit.words import duration

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State

_RECENT = 10  # epochs that a price is a mean over
_RECURRING = ("validation", "pictures", "checkpoint")
_NOT_OF_STEPS = (*_RECURRING, *OF_NO_EPOCH)

Stage = frozenset[str]
"""The names of the groups that train."""


class TimeLeft(NamedTuple):
    """An estimate.

    Attributes:
        seconds: How long the rest of the run takes.
        is_least: Whether something is still to come whose price has not been measured, so that it takes longer.
    """

    seconds: float
    is_least: bool

    def __str__(self) -> str:
        """For example "0:12:30 left", or "> 0:12:30 left"."""
        return f"{'> ' if self.is_least else ''}{duration(self.seconds)} left"


class _Price:
    """What something costs: the mean over the recent times, without the very first, which also warms things up."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._has_first = False

    def take_in(self, seconds: float, number: float) -> None:
        """Take in what a number of them took together."""
        if number > 0:
            if self._has_first and len(self._seen) == 1:
                self._seen.clear()
            self._has_first = not self._has_first and not self._seen
            self._seen.append((seconds, number))

    @property
    def each(self) -> float | None:
        """Seconds of one; None: it has not been measured."""
        if not self._seen:
            return None
        return sum(seconds for seconds, _ in self._seen) / sum(number for _, number in self._seen)


class Estimator:
    """Takes in what each epoch took, and estimates what is left.

    Args:
        recipe: The settings, which say what is due when.
    """

    def __init__(self, recipe: Recipe) -> None:
        evaluations, pictures, saves = recipe.validation, recipe.pictures, recipe.checkpoint
        self._every = {
            "validation": (evaluations.every_epochs, evaluations.every_steps),
            "pictures": (pictures.every_epochs or 0, pictures.every_steps),
            "checkpoint": (saves.every_epochs, saves.every_steps),
        }
        self._steps: dict[Stage, _Price] = defaultdict(_Price)
        self._prices = {what: _Price() for what in _RECURRING}
        self._other_saving = _Price()  # in epochs in which no checkpoint is due: of the best, by time, on request

    def take_in(self, state: State, seconds: Mapping[str, float], first_step: int) -> None:
        """Take in an epoch that has just ended.

        Args:
            state: The run after it.
            seconds: Activity -> seconds of the epoch.
            first_step: Number of finished steps of the run when the seconds began.
        """
        epoch = state.epoch - 1
        of_steps = sum(each for activity, each in seconds.items() if activity not in _NOT_OF_STEPS)
        self._steps[_stage(state, epoch)].take_in(of_steps, state.step - first_step)
        for what, price in self._prices.items():
            price.take_in(seconds[what], self._number_due(what, state, epoch, state.epoch, first_step))
        if not self._number_due("checkpoint", state, epoch, state.epoch, first_step):
            self._other_saving.take_in(seconds["checkpoint"], 1)

    def left(self, state: State) -> TimeLeft | None:
        """Return how long the run still takes; None: that cannot be estimated before its first epoch is over.

        Within an epoch, what was done of its steps is taken off.
        """
        if not any(price.each for price in self._steps.values()):
            return None
        seconds, is_least = 0.0, False
        bounds = {state.epoch, state.epochs}
        for group in state.groups.values():
            bounds |= {each for each in (group.start_epoch, group.stop_epoch) if each is not None}
        bounds_in_order = sorted(each for each in bounds if state.epoch <= each <= state.epochs)
        for begin, end in pairwise(bounds_in_order):
            first = max(state.step, self._step_at(state, begin))
            price, is_known = self._price_of(_stage(state, begin))
            seconds += price * max(self._step_at(state, end) - first, 0)
            is_least |= not is_known
            for what, each in self._prices.items():
                number = self._number_due(what, state, begin, end, first)
                seconds += number * (each.each or 0.0)
                is_least |= number > 0 and each.each is None and not (what == "pictures" and state.is_trial)
                if what == "checkpoint":
                    seconds += max(end - begin - number, 0) * (self._other_saving.each or 0.0)
        return TimeLeft(seconds, is_least)

    def _price_of(self, stage: Stage) -> tuple[float, bool]:
        """Return the price of a step, and whether it was measured; else it is that of the stage that is most alike."""
        measured = {each: price.each for each, price in self._steps.items() if price.each is not None}
        nearest = max(measured, key=lambda each: len(each & stage) - len(each ^ stage))
        # fewer groups do not make a step dearer, so only more of them make the estimate a lower bound
        return measured[nearest] or 0.0, stage <= nearest

    def _step_at(self, state: State, epoch: int) -> int:
        """Return how many steps of the run are finished when so many epochs are."""
        step = state.epoch_step + (epoch - state.epoch) * state.steps_per_epoch
        return step if state.steps is None else min(step, state.steps)

    def _number_due(self, what: str, state: State, begin: int, end: int, first_step: int) -> int:
        """Return how often something is due in some epochs, which follow each other.

        Args:
            what: "validation", "pictures" or "checkpoint".
            state: The run.
            begin: The first epoch.
            end: The first epoch after them.
            first_step: Number of finished steps of the run from which on it counts.
        """
        every_epochs, every_steps = self._every[what]
        number = end // every_epochs - begin // every_epochs if every_epochs else 0
        if every_steps:
            number += max(self._step_at(state, end) // every_steps - first_step // every_steps, 0)
        is_extra = end == state.epochs and not (every_epochs and end % every_epochs == 0)
        return number + is_extra


def _stage(state: State, epoch: int) -> Stage:
    return frozenset(name for name, group in state.groups.items() if group.parameters and group.trains_in(epoch))
