"""Writes ``cases.csv``: the values of single items, for example of each case and class, at the last evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trainkit.events import Live
from trainkit.files.tables import write_table

if TYPE_CHECKING:
    from trainkit.state import State

NAME = "cases.csv"

Row = Mapping[str, str | float | None]


class CasesFile(Live):
    """Part of every run. If several splits are evaluated, each has a file of its own, ``cases-<split>.csv``.

    Args:
        metrics: The metrics; those with a method ``rows`` have values of single items.
        splits: The splits that are evaluated.
    """

    def __init__(self, metrics: Iterable[object], splits: Iterable[str]) -> None:
        self._tables = [metric.rows for metric in metrics if hasattr(metric, "rows")]
        self._several = len(set(splits)) > 1

    def on_validation_end(self, state: State) -> None:
        """Write the values of the split."""
        rows = joined(row for rows in self._tables for row in rows())
        if rows:
            write_table(state.folder / (f"cases-{state.split}.csv" if self._several else NAME), rows)


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
