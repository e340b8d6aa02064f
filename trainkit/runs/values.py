"""The values that a run has written into ``metrics.jsonl``, by finished epochs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from trainkit.contracts import Monitor
from trainkit.engine.every_run import metrics_file


class Place(NamedTuple):
    """When a value was computed.

    Attributes:
        epochs: Number of finished epochs.
        steps: Number of finished optimizer steps.
        inside: Whether it was inside an epoch, so that a further one was begun.
        seconds: Time that was spent in finished epochs, those of the parent included.
    """

    epochs: int
    steps: int
    inside: bool
    seconds: float

    def __str__(self) -> str:
        return f"step {self.steps}" if self.inside else f"epoch {self.epochs}"


class Value(NamedTuple):
    """A value and its place."""

    value: float
    place: Place


@attrs.frozen
class Values:
    """What ``metrics.jsonl`` holds.

    Attributes:
        lines: Place of each line, and what the line holds.
        num_damaged: Number of lines that cannot be read.
        began: Name -> number of finished epochs before the first one in which the value has its present meaning as a
            whole; before it, a resume had not changed it yet. Values that are not named have had it from the beginning.
    """

    lines: Sequence[tuple[Place, Mapping[str, Any]]] = ()
    num_damaged: int = 0
    began: Mapping[str, int] = attrs.Factory(dict)

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return max((place.epochs for place, _ in self.lines), default=0)

    @property
    def steps(self) -> int:
        """Number of finished optimizer steps."""
        return max((place.steps for place, _ in self.lines), default=0)

    @property
    def names(self) -> list[str]:
        """Names of all values, in the order in which they appear."""
        return [name for name in dict.fromkeys(name for _, line in self.lines for name in line) if "/" in name]

    def of(self, name: str) -> Iterator[Value]:
        """Yield the finite values of a name, as far as they have their present meaning."""
        began = self.began.get(name, 0)
        for place, line in self.lines:
            value = metrics_file.number(line.get(name))
            if value is not None and place.epochs - (not place.inside) >= began:
                yield Value(value, place)

    def best(self, monitor: Monitor) -> Value | None:
        """Return the best value of what is monitored, the first if there are several; None: there is none."""
        known = list(self.of(monitor.metric))
        if not known:
            return None
        return (min if monitor.mode == "min" else max)(known, key=lambda each: each.value)

    def last(self, name: str) -> Value | None:
        """Return the last value of a name; None: there is none."""
        return next(iter(deque(self.of(name), maxlen=1)), None)

    def first(self, name: str, is_reached: Callable[[float], bool]) -> Value | None:
        """Return the first value of a name that fulfils a condition; None: there is none."""
        return next((each for each in self.of(name) if is_reached(each.value)), None)


def read_values(folder: Path, began: Mapping[str, int]) -> Values:
    """Return what a run folder's ``metrics.jsonl`` holds.

    Args:
        folder: The run folder.
        began: See `Values.began`.

    Raises:
        OSError: The file cannot be read.
    """
    lines, num_damaged = metrics_file.read_counted(folder)
    found = []
    total = 0.0
    for line in lines:
        inside = "seconds" not in line
        total += metrics_file.number(line.get("seconds")) or 0.0
        found.append((Place(line[metrics_file.EPOCHS], line["step"], inside, total), line))
    return Values(found, num_damaged, began)
