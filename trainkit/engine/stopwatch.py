"""Divides the wall-clock time of a run among what it was spent on. Each moment belongs to exactly one activity.

How much of it the run was kept from computing, because other programs used the CPUs, is counted beside that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from trainkit.cpu_waits import CpuWaits
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

    Args:
        computes_on_cpu: Whether a wait for a CPU is lost time. While a GPU computes, it need not be, so it is not
            counted then.

    Attributes:
        seconds: Activity -> seconds of this lap, those of the present activity up to the last `switch`.
        laps: Activity -> seconds of all laps before.
    """

    def __init__(self, computes_on_cpu: bool = False) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self.laps = dict.fromkeys(ACTIVITIES, 0.0)
        self._cpu_waits = CpuWaits() if computes_on_cpu else None
        self._waited_in_laps = 0.0
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
        if self._cpu_waits is not None:
            self._waited_in_laps += self._cpu_waits.lap() or 0.0

    def waited_for_cpus(self) -> float | None:
        """Return the seconds of this lap in which the thread that waited longest had no CPU; None: not counted."""
        return None if self._cpu_waits is None else self._cpu_waits.seconds()

    def waited_in_all(self) -> float | None:
        """Return the same for all laps together."""
        waited = self.waited_for_cpus()
        return None if waited is None else self._waited_in_laps + waited

    def totals(self) -> dict[str, float]:
        """Return activity -> seconds since the watch was made; together they are all the time that has passed."""
        self.switch(self._activity)
        return {activity: before + self.seconds[activity] for activity, before in self.laps.items()}

    def counting(self, event: str, listeners: Iterable[Listener]) -> tuple[Listener, ...]:
        """Return the listeners of an event, whose time is counted to an activity of its own if they are hooks or so.

        What the model, the data and the metrics do at an event counts to what the event happens in. At the events of a
        step, listeners of one activity that follow each other are counted together.
        """
        if event in _OF_STEP:
            return tuple(self._switching(listeners))
        return tuple(
            each if (activity := _activity_of(event, each)) is None else self._counted(each, activity)
            for each in listeners
        )

    def _counted(self, listener: Listener, activity: str) -> Listener:
        call = listener.call

        def counted(state: State) -> None:
            before = self.switch(activity)
            try:
                call(state)
            finally:
                self.switch(before)

        return listener._replace(call=counted)

    def _switching(self, listeners: Iterable[Listener]) -> Iterator[Listener]:
        """Yield the listeners of a step, and between them some that switch the activity."""
        now = "steps"
        for listener in listeners:
            wanted = _activity_of("", listener) or "steps"
            if wanted != now:
                yield self._switch_to(wanted)
                now = wanted
            yield listener
        if now != "steps":
            yield self._switch_to("steps")

    def _switch_to(self, activity: str) -> Listener:
        def switch(state: State) -> None:
            now = perf_counter()
            self.seconds[self._activity] += now - self._since
            self._activity, self._since = activity, now

        return Listener(switch, f"stopwatch, to {activity}")


def _activity_of(event: str, listener: Listener) -> str | None:
    part = listener.where.partition(",")[0]
    return "pictures" if event == "picture" else _OF_PARTS.get(part, _OF_KINDS.get(part.partition(".")[0]))


_OF_STEP = ("step_start", "backward_end", "step_end")
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
