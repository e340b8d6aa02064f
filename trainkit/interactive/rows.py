"""The values of a run as rows and columns, which notebooks show as a table and pandas takes as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, overload

_SHOWN_ROWS = 60


class Rows(Sequence[Mapping[str, Any]]):
    """Rows of values: a sequence of dicts, whose columns can be taken by name.

    ``pandas.DataFrame(rows)`` makes a data frame of them.

    Args:
        rows: The rows; one that lacks a column has None there.

    Example:
        >>> rows = Rows([{"epoch": 1, "val/loss": 0.5}, {"epoch": 2, "val/loss": 0.25}])
        >>> rows["val/loss"], rows[-1]["epoch"], len(rows)
        ([0.5, 0.25], 2, 2)
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        found = list(rows)
        self.columns = tuple(dict.fromkeys(name for row in found for name in row))
        self._rows = [{name: row.get(name) for name in self.columns} for row in found]

    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Rows: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        """Return a row by its place, rows by a slice, or a column by its name.

        Raises:
            KeyError: There is no such column; the message names those that there are.
            IndexError: There is no such row.
        """
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.columns) or 'none'}")
            return [row[key] for row in self._rows]
        return Rows(self._rows[key]) if isinstance(key, slice) else self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        """Return the rows as a table of plain text."""
        cells = [list(self.columns), *([_in_words(each) for each in row.values()] for row in _some(self._rows))]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_in_words(each))}</td>" for each in row.values()) + "</tr>"
            for row in _some(self._rows)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _some(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield rows to show: all, or the first and the last of many with a row of dots between them."""
    if len(rows) <= _SHOWN_ROWS:
        yield from rows
        return
    half = _SHOWN_ROWS // 2
    yield from rows[:half]
    yield dict.fromkeys(rows[0], "…")
    yield from rows[-half:]


def _in_words(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
