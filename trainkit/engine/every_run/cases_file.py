"""Writes ``cases.csv`` and ``cases_best.csv``: the values of single items, for example of each case and class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from trainkit.events import Live
from trainkit.files.tables import write_table

if TYPE_CHECKING:
    from trainkit.state import State

Row = Mapping[str, str | float | None]


class CasesFile(Live):
    """Part of every run: ``cases.csv`` is of the last evaluation, ``cases_best.csv`` of the best checkpoint.

    If several splits are evaluated, each has files of its own, ``cases-<split>.csv`` and ``cases-<split>_best.csv``.
    The columns "epochs" and "steps" say after how many of them the evaluation was.

    Args:
        metrics: The metrics; those with a method ``rows`` have values of single items.
        splits: The splits that are evaluated.
        becomes_best: Returns whether the checkpoint that will be written next is the best.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, metrics: Iterable[object], splits: Iterable[str], becomes_best: Callable[[State], bool]) -> None:
        self._tables = [metric.rows for metric in metrics if hasattr(metric, "rows")]
        self._several = len(set(splits)) > 1
        self._becomes_best = becomes_best
        self._last: dict[str, list[dict[str, str | float | None]]] = {}  # name of the file of the best -> its rows

    def on_validation_end(self, state: State) -> None:
        """Write the values of the split."""
        assert state.split is not None
        rows = joined(row for rows in self._tables for row in rows())
        self._write(state, state.split, state.epoch + state.closing, rows)

    def _write(self, state: State, split: str, epochs: int, found: Iterable[Row]) -> None:
        rows = [{**row, "epochs": epochs, "steps": state.step} for row in found]
        if rows:
            name, best = (f"cases-{split}{end}.csv" if self._several else f"cases{end}.csv" for end in ("", "_best"))
            write_table(state.folder / name, rows)
            self._last[best] = rows

    def on_late_values(self, state: State) -> None:
        """Write the values of an epoch that have come after it."""
        for split, rows in state.late_rows.items():
            self._write(state, split, state.epoch, rows)
        self.on_checkpoint(state)

    def on_checkpoint(self, state: State) -> None:
        """Write the same values as those of the best checkpoint, before that is written."""
        if state.awaits_values:
            return
        if self._tables and self._becomes_best(state):
            for name, rows in self._last.items():
                if rows[0]["steps"] == state.step:
                    write_table(state.folder / name, rows)
                else:  # a value of training is monitored, and there was no evaluation now
                    (state.folder / name).unlink(missing_ok=True)


def joined(rows: Iterable[Row]) -> list[dict[str, str | float | None]]:
    """Return rows with the same texts as one, all with the same columns.

    Example:
        >>> joined([{"case": "a", "dice": 0.9}, {"case": "b", "dice": 0.8}, {"case": "a", "hd95_mm": 2.0}])
        [{'case': 'a', 'dice': 0.9, 'hd95_mm': 2.0}, {'case': 'b', 'dice': 0.8, 'hd95_mm': None}]
    """
    found: dict[tuple[str, ...], dict[str, str | float | None]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
        found.setdefault(tuple(value for value in row.values() if isinstance(value, str)), {}).update(row)
    return [{column: row.get(column) for column in columns} for row in found.values()]
