"""Estimates how long a run still takes.

An epoch costs its steps, whose price depends on its stage, and the evaluations, pictures and checkpoints that are due
in it; something follows the last one. A price is taken from where it is known best:

    what this run took for it so far
    what an earlier run of the same recipe took on the same machine, times how much slower or faster this one is
    for steps, a trial of the stages to come (`stage_trial`); for the ending, what parts announce; for pictures, what
    they usually take
    for steps, the stage that is most alike, which is a lower bound
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from trainkit.engine.picture_budget import USUAL_SECONDS
from trainkit.engine.prices import Prices
from trainkit.state import OF_NO_EPOCH
from trainkit.words import duration

if TYPE_CHECKING:
    from trainkit.engine.picture_budget import PictureBudget
    from trainkit.engine.stages import Stage, Stages
    from trainkit.recipe.root import Recipe
    from trainkit.state import State

_RECENT = 10  # epochs that a price is a mean over
_RECURRING = ("validation", "pictures", "checkpoint")
_NOT_OF_STEPS = (*_RECURRING, *OF_NO_EPOCH)
_WORTH_A_SIGN = 0.02  # share of the time left whose price was not measured in this run


class TimeLeft(NamedTuple):
    """An estimate.

    Attributes:
        seconds: How long the rest of the run takes.
        is_least: Whether something is still to come whose price is not known, so that it takes longer.
        is_guess: Whether the price of something that is still to come was not measured in this run.
    """

    seconds: float
    is_least: bool
    is_guess: bool = False

    def __str__(self) -> str:
        """For example "0:12:30 left", "~ 0:12:30 left", or "> 0:12:30 left"."""
        sign = "> " if self.is_least else "~ " if self.is_guess else ""
        return f"{sign}{duration(self.seconds)} left"


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
    def is_first(self) -> bool:
        """Whether only the very first was measured."""
        return self._has_first and len(self._seen) == 1

    @property
    def each(self) -> float | None:
        """Seconds of one; None: it has not been measured."""
        if not self._seen:
            return None
        return sum(seconds for seconds, _ in self._seen) / sum(number for _, number in self._seen)


class _Sum:
    """Adds up seconds, and how many of them have a price that was not measured in this run."""

    def __init__(self) -> None:
        self.seconds = self.guessed = 0.0
        self.is_least = False

    def add(self, price: float, number: float, *, is_measured: bool) -> None:
        self.seconds += price * number
        if not is_measured:
            self.guessed += price * number

    def add_known(self, price: tuple[float | None, bool], number: int) -> None:
        """Add what has a price, if it has one, and may have been measured in this run."""
        seconds, is_measured = price
        self.add(seconds or 0.0, number, is_measured=is_measured)
        self.is_least |= number > 0 and seconds is None

    def time_left(self) -> TimeLeft:
        return TimeLeft(self.seconds, self.is_least, self.guessed > _WORTH_A_SIGN * self.seconds)


class Estimator:
    """Takes in what each epoch took, and estimates what is left.

    Args:
        recipe: The settings, which say what is due when.
        stages: The stages of the run.
        earlier: What earlier runs recorded.
        tried: Returns, of each stage that was tried, what a step cost in the trial.
        budget: Decides about pictures where the recipe does not say how often they are made; None: there are none but
            those of the last epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        stages: Stages,
        earlier: Prices | None = None,
        tried: Callable[[], Mapping[Stage, float]] = dict,
        budget: PictureBudget | None = None,
    ) -> None:
        evaluations, pictures, saves = recipe.validation, recipe.pictures, recipe.checkpoint
        self._every = {
            "validation": (evaluations.every_epochs, evaluations.every_steps),
            "pictures": (pictures.every_epochs or 0, pictures.every_steps),
            "checkpoint": (saves.every_epochs, saves.every_steps),
        }
        self._stages, self._earlier, self._tried = stages, earlier or Prices(), tried
        self._budget = budget if pictures.every_epochs is None else None
        self._steps: dict[Stage, _Price] = defaultdict(_Price)
        self._computing: dict[Stage, _Price] = defaultdict(_Price)  # forward, backward and update alone
        self._validation: dict[Stage, _Price] = defaultdict(_Price)
        self._pictures, self._checkpoint, self._logging = _Price(), _Price(), _Price()
        self._other_saving = _Price()  # in epochs in which no checkpoint is due: of the best, by time, on request
        self._saves_before: int | None = None  # in the epoch before; None: there was none in this process
        self._spent_on_pictures = 0.0
        self._first_stage: Stage | None = None

    def take_in(self, state: State, seconds: Mapping[str, float], first_step: int, pictures: int | None = None) -> None:
        """Take in an epoch that has just ended.

        Args:
            state: The run after it.
            seconds: Activity -> seconds of the epoch.
            first_step: Number of finished steps of the run when the seconds began.
            pictures: How often pictures were made; None: as often as they were due.
        """
        epoch = state.epoch - 1
        stage = self._stages.at(epoch)
        self._first_stage = self._first_stage or stage
        of_steps = sum(each for activity, each in seconds.items() if activity not in _NOT_OF_STEPS)
        due = {what: self._number_due(what, state, epoch, state.epoch, first_step) for what in _RECURRING}
        made = due["pictures"] if pictures is None else pictures
        logging, logged = seconds.get("logging", 0.0), 0.0
        if not made:
            self._logging.take_in(logging, 1)
        elif self._logging.each is not None:  # loggers take longer for pictures, which is part of their price
            logged = max(logging - self._logging.each, 0.0)
        self._steps[stage].take_in(of_steps - logged, state.step - first_step)
        self._computing[stage].take_in(seconds["steps"], state.step - first_step)
        self._validation[stage].take_in(seconds["validation"], due["validation"])
        self._spent_on_pictures += seconds["pictures"]
        self._pictures.take_in(seconds["pictures"] + logged, made)
        # What is saved at the end of an epoch counts to the next one, and the very first file takes longer.
        if self._saves_before is not None:
            self._checkpoint.take_in(seconds["checkpoint"], self._saves_before)
            if not self._saves_before:
                self._other_saving.take_in(seconds["checkpoint"], 1)
        self._saves_before = due["checkpoint"]

    def prices(self, ending: float | None) -> Prices:
        """Return what was measured in this run, the first epoch of all left out: it also warms things up.

        Args:
            ending: What followed the last epoch; None: the run did not get there.
        """

        def of_stages(prices: Mapping[Stage, _Price]) -> dict[str, float]:
            return {
                stage.key: price.each
                for stage, price in prices.items()
                if price.each is not None and not (price.is_first and stage == self._first_stage)
            }

        return Prices(
            steps=of_stages(self._steps),
            validation=of_stages(self._validation),
            pictures=self._pictures.each,
            checkpoint=self._checkpoint.each,
            ending=ending,
        )

    def left(self, state: State) -> TimeLeft | None:
        """Return how long the run still takes; None: that cannot be estimated before its first epoch is over.

        Within an epoch, what was done of its steps is taken off.
        """
        if not self._earlier.steps and not any(price.each for price in self._steps.values()):
            return None
        speed, total = self._slowness(), _Sum()
        for begin, end, stage in self._stages.between(state.epoch, state.epochs):
            first = max(state.step, self._step_at(state, begin))
            price, is_measured, is_known = self._price_of_step(stage, speed)
            total.add(price, max(self._step_at(state, end) - first, 0), is_measured=is_measured)
            total.is_least |= not is_known
            evaluations = self._number_due("validation", state, begin, end, first)
            total.add_known(self._price_of_validation(stage, speed), evaluations)
            saves = self._number_due("checkpoint", state, begin, end, first)
            total.add_known(_known(self._checkpoint.each, self._earlier.checkpoint, speed), saves)
            total.add(self._other_saving.each or 0.0, max(end - begin - saves, 0), is_measured=True)
        if not state.is_trial:
            self._add_pictures(total, state, speed)
        ending = state.announced_ending if self._earlier.ending is None else self._earlier.ending * speed
        total.add(ending, 1, is_measured=False)
        return total.time_left()

    def _add_pictures(self, total: _Sum, state: State, speed: float) -> None:
        price, is_measured = _known(self._pictures.each, self._earlier.pictures, speed)
        price = USUAL_SECONDS if price is None else price
        number = self._number_due("pictures", state, state.epoch, state.epochs, state.step)
        if self._budget is not None and price > 0:
            number += self._budget.number_left(state, self._spent_on_pictures, price, total.seconds)
        total.add(price, number, is_measured=is_measured)

    def _slowness(self) -> float:
        """Return how many times as long as in the earlier runs a step takes, as far as stages of both are known."""
        both = [
            (price.each, self._earlier.steps[stage.key])
            for stage, price in self._steps.items()
            if price.each is not None and stage.key in self._earlier.steps
        ]
        before = sum(seconds for _, seconds in both)
        return sum(seconds for seconds, _ in both) / before if before > 0 else 1.0

    def _price_of_step(self, stage: Stage, speed: float) -> tuple[float, bool, bool]:
        """Return the price of a step, whether it was measured in this run, and whether it is no lower bound."""
        measured = {each: price.each for each, price in self._steps.items() if price.each is not None}
        if stage in measured:
            return measured[stage], True, True
        if (before := self._earlier.steps.get(stage.key)) is not None:
            return before * speed, False, True
        nearest = min(measured, key=stage.difference) if measured else None
        if nearest is None:
            return 0.0, False, False
        tried, computing = self._tried(), self._computing[nearest].each
        if computing is not None and stage in tried and tried.get(nearest, 0.0) > 0:
            more = computing * (tried[stage] / tried[nearest] - 1)
            return max(measured[nearest] + more, 0.0), False, True
        return measured[nearest], nearest.covers(stage), nearest.covers(stage)

    def _price_of_validation(self, stage: Stage, speed: float) -> tuple[float | None, bool]:
        """Return the price of an evaluation, and whether it was measured in this run; None: it is not known."""
        measured = {each: price.each for each, price in self._validation.items() if price.each is not None}
        if stage not in measured and stage.key in self._earlier.validation:
            return self._earlier.validation[stage.key] * speed, False
        nearest = min(measured, key=stage.difference) if measured else None
        return (None, False) if nearest is None else (measured[nearest], nearest.covers(stage))

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


def _known(measured: float | None, before: float | None, speed: float) -> tuple[float | None, bool]:
    """Return a price, and whether it was measured in this run; None: it is not known."""
    if measured is None and before is not None:
        return before * speed, False
    return measured, measured is not None
