"""Says how much of the time of its steps a run spent waiting for data, and what can be done about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from trainkit.events import Live
from trainkit.state import share_of_waiting
from trainkit.words import percent_in_words

if TYPE_CHECKING:
    from trainkit.contracts import Data
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_SHARE = 0.05  # of the time of the steps; below it, nothing is worth changing
_SECONDS = 10.0  # a run that waited for less is a trial


class Waiting(Live):
    """Part of every run: adds up how long its steps waited for data since the run started or was resumed.

    Args:
        data: The settings of the data, which know what would shorten the waiting.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, data: Data) -> None:
        self._data = data
        self._seconds = {"data": 0.0, "steps": 0.0}

    def on_epoch_end(self, state: State) -> None:
        """Add the times of an epoch."""
        for what in self._seconds:
            self._seconds[what] += state.seconds[what]

    def on_run_end(self, state: State) -> None:
        """Say how much time was lost, if it is worth a change."""
        share = share_of_waiting(self._seconds)
        if state.failed or share < _SHARE or self._seconds["data"] < _SECONDS:
            return
        advice = self._data.against_waiting(state.context)
        _LOGGER.warning(
            "steps waited for data for %s of their time (%.0f of %.0f s)%s",
            percent_in_words(share),
            *(self._seconds["data"], sum(self._seconds.values()), f"; {advice}" if advice else ""),
        )
