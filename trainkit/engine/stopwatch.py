"""Divides the wall-clock time of a run among what it was spent on. Each moment belongs to exactly one activity."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from trainkit.events import Listener

if TYPE_CHECKING:
    from trainkit.state import State

ACTIVITIES = {
    "steps": "training",
    "data": "waiting for data",
    "validation": "validation",
    "pictures": "pictures",
    "hooks": "hooks",
    "logging": "logging",
    "checkpoint": "saving",
    "starting": "starting",
    "ending": "ending",
    "rest": "rest",
}
"""Activity, as in ``State.seconds`` -> what it is called in messages.

"starting" is all that comes before the first epoch of a start, for example opening the data; "ending" is what follows
the last one, for example a look at the result."""

_OF_PARTS = {
    "saver": "checkpoint",
    "cases_file": "checkpoint",
    "metrics_file": "logging",
    "figures": "pictures",
    "progress_chart": "pictures",
}


class Stopwatch:
    """Adds up the wall-clock time of each activity.

    Attributes:
        seconds: Activity -> seconds of this lap, those of the present activity up to the last `switch`.
        laps: Activity -> seconds of all laps before.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self.laps = dict.fromkeys(ACTIVITIES, 0.0)
        self._activity = "starting"
        self._since = perf_counter()

    def switch(self, activity: str) -> str:
        """Begin an activity, which ends the present one; return the present one."""
        now = perf_counter()
        before = self._activity
        self.seconds[before] += now - self._since
        self._activity, self._since = activity, now
        return before

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count the time of a block to an activity, and go back to the present one after it."""
        before = self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    def lap(self) -> None:
        """Begin a new lap."""
        self.switch(self._activity)
        for activity, seconds in self.seconds.items():
            self.laps[activity] += seconds
            self.seconds[activity] = 0.0

    def totals(self) -> dict[str, float]:
        """Return activity -> seconds since the watch was made; together they are all the time that has passed."""
        self.switch(self._activity)
        return {activity: before + self.seconds[activity] for activity, before in self.laps.items()}

    def counting(self, event: str, listener: Listener) -> Listener:
        """Return a listener whose time is counted to an activity of its own, if it is a hook, a logger or the like.

        What the model, the data and the metrics do at an event counts to what the event happens in.
        """
        part = listener.where.partition(",")[0]
        activity = "pictures" if event == "picture" else _OF_PARTS.get(part, _OF_KINDS.get(part.partition(".")[0]))
        if activity is None:
            return listener
        return listener._replace(call=self._counted(listener.call, activity))

    def _counted(self, call: Callable[[State], None], activity: str) -> Callable[[State], None]:
        def counted(state: State) -> None:
            before = self.switch(activity)
            try:
                call(state)
            finally:
                self.switch(before)

        return counted


_OF_KINDS = {"hooks": "hooks", "loggers": "logging"}


def shares_in_words(seconds: Mapping[str, float]) -> str:
    """Return which share of the time each activity took; the shares add up to 100 %.

    Example:
        >>> shares_in_words({"steps": 7.0, "validation": 2.0, "checkpoint": 1.001, "rest": 0.001})
        'training 70 %, validation 20 %, saving 10 %'
    """
    total = sum(seconds.values())
    if total <= 0:
        return ""
    percents = {activity: 100 * each / total for activity, each in seconds.items()}
    small = [activity for activity, each in percents.items() if each < 1 and activity != "rest"]
    percents["rest"] = percents.get("rest", 0.0) + sum(percents.pop(activity) for activity in small)
    whole = {activity: int(each) for activity, each in percents.items()}
    by_remainder = sorted(percents, key=lambda activity: whole[activity] - percents[activity])
    for activity in by_remainder[: 100 - sum(whole.values())]:
        whole[activity] += 1
    return ", ".join(f"{words} {whole[each]} %" for each, words in ACTIVITIES.items() if whole.get(each))
