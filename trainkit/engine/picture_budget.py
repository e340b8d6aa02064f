"""Decides whether a run has time for pictures, where the recipe does not say how often they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.recipe.root import PICTURES_EVERY_EPOCHS, PICTURES_SHARE
from trainkit.state import OF_NO_EPOCH

if TYPE_CHECKING:
    from trainkit.engine.stopwatch import Stopwatch
    from trainkit.state import State

USUAL_SECONDS = 2.0
"""What the pictures of an epoch take, first ones and loggers included, as far as none were made yet."""

_FIRST = 1.0  # seconds that the first pictures of a process are expected to take
_SHORT = 1.5  # seconds that pictures may take in any run, however short


class PictureBudget:
    """Allows pictures as long as they and those of the last epoch take a small share of the run's time.

    What a run computes does not depend on it. After a resume, the time since then counts.

    Attributes:
        times_made: How often pictures were made.
    """

    def __init__(self) -> None:
        self._first_epoch: int | None = None
        self.times_made = 0

    def start(self, state: State) -> None:
        """Count the epochs from here on."""
        self._first_epoch = state.epoch

    def take_in(self) -> None:
        """Count pictures that are made, for whatever reason."""
        self.times_made += 1

    def allows(self, state: State, watch: Stopwatch) -> bool:
        """Return whether pictures at the end of this epoch are due and affordable."""
        finished = state.epoch + 1
        if finished % PICTURES_EVERY_EPOCHS or self._first_epoch is None:
            return False
        seconds = watch.totals()
        spent = seconds["pictures"]
        each = spent / self.times_made if self.times_made else _FIRST
        so_far = sum(value for activity, value in seconds.items() if activity not in OF_NO_EPOCH)
        expected = so_far / (finished - self._first_epoch) * (state.epochs - self._first_epoch)
        return spent + 2 * each <= max(_SHORT, PICTURES_SHARE * expected)

    def number_left(self, state: State, spent: float, each: float, rest: float) -> int:
        """Return about how often `allows` will still say yes, the last epoch left out, which always has pictures.

        Args:
            state: The run after an epoch.
            spent: Seconds that pictures took so far.
            each: Seconds that they take.
            rest: Seconds that the rest of the run takes without pictures.
        """
        first = self._first_epoch or 0
        chances = (state.epochs - 1) // PICTURES_EVERY_EPOCHS - state.epoch // PICTURES_EVERY_EPOCHS
        expected = rest / max(state.epochs - state.epoch, 1) * (state.epochs - first)
        affordable = (max(_SHORT, PICTURES_SHARE * expected) - spent) / each - 1
        return min(max(int(affordable), 0), max(chances, 0))
