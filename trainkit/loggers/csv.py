"""Writes the values of a run as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component
from trainkit.files.writing import append_line, written_whole
from trainkit.loggers.in_background import InBackground
from trainkit.loggers.recorder import By, Place
from trainkit.loggers.sink import Sink, Start, is_mark

_FILES: Mapping[By, str] = {"epoch": "epochs.csv", "step": "steps.csv"}
_COUNTS = ("epoch", "step")


@component
class CSV(Logger):
    """Writes the values into ``epochs.csv`` and ``steps.csv`` of the run folder, with a column for each value.

    The columns "epoch" and "step" say how many are finished. A value that is not computed at a row's place is empty.
    When a run continues, later rows are cut off. For a program that reads them, ``jsonl`` is simpler.

    Attributes:
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
    """

    steps_can_be_recorded: ClassVar[bool] = True

    takes_late_values: ClassVar[bool] = True

    every_steps: int = attrs.field(default=50, validator=ge(0), metadata=HARMLESS)
    gradient_norm_every_steps: int = attrs.field(default=10, validator=ge(0), metadata=HARMLESS)

    def build(self, context: Context) -> object:
        """Make the live part."""
        return InBackground(_Tables(), self.every_steps, self.gradient_norm_every_steps)


class _Tables(Sink):
    """Both files."""

    name = "epochs.csv and steps.csv"
    wait_seconds = 10.0

    def open(self, start: Start) -> None:
        """Keep the rows that belong to what is finished."""
        self._tables = {}
        for by, name in _FILES.items():
            source = (start.about.continues or start.folder) / name
            table = self._tables[by] = _Table(start.folder / name)
            columns, rows = _read(source)
            finished = {"epoch": start.epoch, "step": start.step}[by]
            table.columns = columns
            if source.exists() or table.path.exists():
                table.rewrite([row for row in rows if int(row[by]) <= finished])

    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Append a row. Marks of stages are in no table, since they belong to no finished epoch."""
        row = {name: repr(value) for name, value in values.items() if not is_mark(name)}
        if row:
            self._tables[place.by].append({"epoch": str(place.epoch), "step": str(place.step), **row})


@attrs.define
class _Table:
    """A table with named columns.

    Attributes:
        path: The file.
        columns: The names of the columns so far.
    """

    path: Path
    columns: list[str] = attrs.Factory(list)

    def append(self, row: Mapping[str, str]) -> None:
        """Append a row; if it has a new value, the file gets a new column."""
        if new := [name for name in row if name not in self.columns]:
            _, rows = _read(self.path)
            self.columns += new
            self.rewrite([*rows, row])
        else:
            append_line(self.path, _line(row.get(name, "") for name in self.columns))

    def rewrite(self, rows: list[Mapping[str, str]] | list[dict[str, str]]) -> None:
        """Write the whole file."""
        lines = [self.columns, *([row.get(name, "") for name in self.columns] for row in rows)]
        with written_whole(self.path) as new:
            new.write_text("".join(_line(line) + "\n" for line in lines), encoding="utf-8")


def _line(cells: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)  # type: ignore[arg-type]
    return text.getvalue()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows of a table; the last row of a killed process may have no end."""
    if not path.is_file():
        return [], []
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    header, *lines = list(csv.reader(io.StringIO(whole))) or [[]]
    rows = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]
    return header, [row for row in rows if all(row.get(name, "").isdigit() for name in _COUNTS)]
