"""Lays out the line of a finished epoch: the monitored value, then as many others as the terminal has room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.state import State

BEST = "*"
"""Marks the monitored value if it is the best so far."""

_FIRST = ("train/loss", "val/loss")  # after the monitored value


class EpochLine:
    """Keeps the columns of the lines of a run below each other."""

    def __init__(self) -> None:
        self._widths: dict[str, int] = {}  # of the cells so far

    def text(self, state: State, *, is_best: bool, took: str, left: str, width: int) -> str:
        """Return the line.

        Args:
            state: The run after the epoch.
            is_best: Whether the monitored value is the best so far.
            took: How long the epoch took.
            left: How long the run still takes; "": it is not known, or nothing is left.
            width: Columns of the terminal.
        """
        mark = BEST if is_best else " "
        line = f"{counted(state)}  {self._cell(state.monitor.metric, state.metrics)} {mark}"
        tail = ""
        for each, least in ((left, 16), (took, 7)):
            padded = f"{each:>{max(least, len(each))}}"
            if len(line) + len(padded) + len(tail) + 1 <= width:
                tail = padded + tail
        for cells in (self._values(state), self._rates(state)):
            are_all = True
            for cell in cells:
                if len(line) + len(cell) + len(tail) + 3 <= width:
                    line += f"  {cell}"
                else:
                    are_all = False
            if not are_all:
                break
        return f"{line:<{width - len(tail)}}{tail}".rstrip() if len(line) <= width else line[: width - 1] + "…"

    def _values(self, state: State) -> Iterator[str]:
        names = [name for name in _FIRST if name in state.metrics]
        names += [name for name in state.metrics if name not in names and not name.startswith("lr/")]
        for name in names:
            if name != state.monitor.metric:
                yield self._cell(name, state.metrics)

    def _rates(self, state: State) -> Iterator[str]:
        for name, lr in state.learning_rates().items():
            if state.groups[name].active:
                yield self._cell(f"lr {name}", {f"lr {name}": lr})

    def _cell(self, name: str, values: Mapping[str, float]) -> str:
        value = values.get(name)
        cell = f"{name} {'-' if value is None else f'{value:.4g}'}"
        self._widths[name] = max(self._widths.get(name, 0), len(cell))
        return f"{cell:<{self._widths[name]}}"


def all_values(state: State) -> str:
    """Return all values of a finished epoch, and the learning rates of the groups that trained in it."""
    rates = [f"{name} {lr:.3g}" for name, lr in state.learning_rates().items() if state.groups[name].active]
    values = [f"{name} {value:.4g}" for name, value in state.metrics.items() if not name.startswith("lr/")]
    return "  ".join([*values, "lr " + " ".join(rates)])


def counted(state: State, epoch: int | None = None) -> str:
    """Return the number of an epoch, or of those that are finished, and that of all: "epoch  3/40"."""
    return f"epoch {state.epoch if epoch is None else epoch:>{len(str(state.epochs))}}/{state.epochs}"
