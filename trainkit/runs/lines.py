"""Formats a list of runs for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainkit.engine.finding import short_id
from trainkit.recipe.sweep import value_in_words
from trainkit.runs.families import Branch, Family
from trainkit.runs.history import requests_in_words
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import NOT_SET
from trainkit.words import after_epochs, duration

_LONGEST_VALUE = 60


class Line(NamedTuple):
    """A line of the list.

    Attributes:
        text: The text.
        kind: "head" of the table, "family", a "run", or "more" about it.
        run: The run that it is about.
    """

    text: str
    kind: str
    run: RunRecord | None = None


class _Row(NamedTuple):
    cells: tuple[str, ...]
    settings: str
    more: list[str]
    branch: Branch


_HEAD = ("RUN", "STARTED", "STATE", "EPOCHS", "BEST", "AT", "TIME")
_CAN_BE_LEFT_OUT = ("STARTED", "AT")
_TO_THE_RIGHT = ("EPOCHS", "BEST", "AT", "TIME")


def tree_lines(families: Sequence[Family], width: int) -> Iterator[Line]:
    """Yield the lines of a list in which runs stand below those that they began from.

    Args:
        families: The runs.
        width: Columns of the terminal.
    """
    tables = [_rows(family) for family in families]
    widths = _widths([row for rows in tables for row in rows], width)
    yield Line(_joined(_HEAD, widths), "head")
    for family, rows in zip(families, tables, strict=True):
        yield Line(_shortened(f"{family.name}  {_monitored(family)}".rstrip(), width), "family")
        for row in rows:
            yield from _lines(row, widths, width)


def flat_lines(runs: Sequence[RunRecord], differing: Sequence[str], width: int) -> Iterator[Line]:
    """Yield the lines of a list of runs in a given order.

    Args:
        runs: The runs.
        differing: The settings that are shown of each.
        width: Columns of the terminal.
    """
    family = Family("", runs, differing)
    rows = [_row(Branch(run, "", "  "), family, True) for run in runs]
    widths = _widths(rows, width)
    yield Line(_joined(_HEAD, widths), "head")
    for row in rows:
        yield from _lines(row, widths, width)


def _lines(row: _Row, widths: Sequence[int], width: int) -> Iterator[Line]:
    text = _joined(row.cells, widths)
    more = row.more
    if row.settings and len(text) + 2 + len(row.settings) <= width:
        text = f"{text}  {row.settings}"
    elif row.settings:
        more = [row.settings, *more]
    run = row.branch.run
    yield Line(_shortened(text, width), "run", run)
    indent = "  " + row.branch.below
    for each in more:
        if len(indent) + 2 + len(each) <= width:
            yield Line(f"{indent}  {each}".rstrip(), "more", run)
            continue
        for part in textwrap.wrap(each, max(20, width - len(indent) - 2), break_on_hyphens=False):
            yield Line(f"{indent}  {part}", "more", run)


def _rows(family: Family) -> list[_Row]:
    with_name = family.has_names
    return [_row(branch, family, with_name) for branch in family.tree()]


def _row(branch: Branch, family: Family, with_name: bool) -> _Row:
    run = branch.run
    label = f"{run.name} {short_id(run.id)}" if with_name else short_id(run.id)
    best = run.best
    cells = (
        f"  {branch.lines}{label}",
        "" if run.created is None else f"{run.created.astimezone():%m-%d %H:%M}",
        run.state.name,
        _progress(run),
        "" if best is None else f"{best.value:.5g}",
        "" if best is None else str(best.place.steps if best.place.inside else best.place.epochs),
        duration(run.seconds),
    )
    return _Row(cells, differences(run, family.told_apart_by(run)), list(_more(run, family)), branch)


def _more(run: RunRecord, family: Family) -> Iterator[str]:
    if run.parent is not None:
        is_beside = any(each.id == run.parent.run for each in family.runs)
        whence = run.parent.run or run.parent.checkpoint
        yield f"from {short_id(whence) if is_beside else whence} {after_epochs(run.parent.epoch)}"
    yield from (_shortened(each, 300) for each in requests_in_words(run))
    if (holder := run.state.holder) is not None:
        certainty = "" if holder.is_certain else ", as its heartbeat says"
        yield f"in process {holder.process or 'unknown'} on {holder.host or 'an unknown host'}{certainty}"
    elif run.state.why:
        yield f"{run.state.name}: {_shortened(run.state.why.splitlines()[0], 300)}"
    if run.disturbance:
        yield f"TIME is too long: {run.disturbance}"
    for problem in run.problems:
        yield f"damaged: {problem}"


def differences(run: RunRecord, keys: Sequence[str]) -> str:
    """Return what a run has set where others have something else.

    Args:
        run: The run.
        keys: The settings that differ.
    """
    shown = (f"{key}={in_words(run.settings[key])}" for key in keys if run.settings.get(key, NOT_SET) is not NOT_SET)
    return "  ".join(shown)


def in_words(value: Any) -> str:
    """Return the value of a setting in few words."""
    return value if isinstance(value, str) else _shortened(value_in_words(value), _LONGEST_VALUE)


def _progress(run: RunRecord) -> str:
    if run.planned_steps is not None:
        return f"{run.values.steps}/{run.planned_steps} st"
    return f"{run.values.epochs}/{run.planned_epochs or '?'}"


def _monitored(family: Family) -> str:
    monitors = {run.monitor for run in family.runs}
    if len(monitors) != 1 or None in monitors:
        return "several values are monitored" if len(monitors) > 1 else ""
    (monitor,) = monitors
    return f"{monitor.metric}, {'lower' if monitor.mode == 'min' else 'higher'} is better" if monitor else ""


def _widths(rows: Sequence[_Row], width: int) -> list[int]:
    """Return the width of each column; 0: it is left out, since the terminal is too narrow for all."""
    columns = zip(_HEAD, *(row.cells for row in rows), strict=True)
    found = [min(max(map(len, column)), 36) for column in columns]
    for name in _CAN_BE_LEFT_OUT:
        if sum(found) + 2 * (sum(map(bool, found)) - 1) > width:
            found[_HEAD.index(name)] = 0
    return found


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for name, cell, width in zip(_HEAD, cells, widths, strict=True):
        if width == 0:
            continue
        text = _shortened(cell, width)
        parts.append(text.rjust(width) if name in _TO_THE_RIGHT else text.ljust(width))
    return "  ".join(parts).rstrip()


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
