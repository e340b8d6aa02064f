"""Sums up a queue of runs: a table for people, and ``sweep.csv`` in the folder of each sweep.

Runs are told apart by their names; those of a sweep also by the settings that it changes; and those of several files
that gave one name, by the settings that differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from trainkit.engine.changes import flat
from trainkit.files.tables import write_table
from trainkit.recipe.origin import dotted
from trainkit.recipe.sweep import short_names, value_in_words

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.checkpoint.folder import Best
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved

SWEEP_FILE = "sweep.csv"
_FEW = 4  # settings that tell recipe files apart; of more, the file alone is shown
_WIDEST = 40  # characters of a value
_NOT_STARTED = "not started"
_OWN = {("run", "name"), ("run", "dir")}


class QueueResult(NamedTuple):
    """What happened to one recipe.

    Attributes:
        resolved: The recipe.
        what: "finished", "skipped: …", "stopped: …" or "failed: …", and whether the result is doubtful.
        best: The best monitored value; None: there is none.
        seconds: How long it took this time.
        folder: The run folder; None: there is none.
    """

    resolved: Resolved
    what: str
    best: Best | None = None
    seconds: float = 0.0
    folder: Path | None = None


def table(done: Sequence[QueueResult], recipes: Sequence[Resolved]) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        done: What happened to the first recipes of the queue.
        recipes: All of them.
    """
    results = [*done, *(QueueResult(each, _NOT_STARTED) for each in recipes[len(done) :])]
    monitors = {each.resolved.recipe.monitor.metric for each in results}
    best = f"best {monitors.pop()}" if len(monitors) == 1 else "best"
    columns: dict[str, list[str]] = {"run": [each.resolved.recipe.run.name for each in results]}
    columns |= told_apart([each.resolved for each in results])
    columns["took"] = [
        "-" if each.what == _NOT_STARTED else str(timedelta(seconds=round(each.seconds))) for each in results
    ]
    columns[best] = [f"{each.best.value:.5g}" if each.best else "-" for each in results]
    yield ""
    widths = {title: max(len(title), *map(len, cells)) for title, cells in columns.items()}
    yield "  ".join(_cell(title, title, widths) for title in columns) + "  what"
    for number, each in enumerate(results):
        line = "  ".join(_cell(cells[number], title, widths) for title, cells in columns.items())
        yield f"{line}  {each.what}" + (f"  ({each.folder})" if each.folder else "")
    yield from _winner(results)


def _cell(text: str, title: str, widths: Mapping[str, int]) -> str:
    return f"{text:<{widths[title]}}" if title in ("run", "recipe") else f"{text:>{widths[title]}}"


def _winner(results: Sequence[QueueResult]) -> Iterator[str]:
    """Yield which run of a sweep is the best, if their values can be compared."""
    monitors = {each.resolved.recipe.monitor for each in results}
    known = [each for each in results if each.best]
    if len(monitors) == 1 and len(known) > 1 and all(each.resolved.point for each in results):
        (monitor,) = monitors
        best = min(known, key=lambda each: each.best.value * (1 if monitor.mode == "min" else -1))  # type: ignore[union-attr]
        yield f"best: {best.resolved.recipe.run.name}, {monitor.metric} {best.best.value:.5g}"  # type: ignore[union-attr]


def told_apart(recipes: Sequence[Resolved]) -> dict[str, list[str]]:
    """Return the columns that tell recipes apart besides their names: title -> a cell for each recipe."""
    names = [{each.recipe.run.name, *each.other_names} for each in recipes]
    alike = [each for each, own in zip(recipes, names, strict=True) if sum(bool(own & other) for other in names) > 1]
    alike = [each for each in alike if each.point is None]
    columns: dict[str, list[str]] = {}
    if len({each.source for each in alike}) > 1:
        columns["recipe"] = [each.source for each in recipes]
    swept = dict.fromkeys(key for each in recipes if each.point is not None for key in each.point.values)
    trees = [dict(flat(each.tree)) for each in alike]
    places = dict.fromkeys(where for tree in trees for where in tree if where not in _OWN)
    differing = [where for where in places if len({repr(tree.get(where)) for tree in trees}) > 1]
    keys = list(dict.fromkeys((*swept, *(differing if len(differing) <= _FEW else ()))))
    for key, title in short_names(keys).items():
        columns[title] = [_shown(_value(each, key)) for each in recipes]
    return columns


def _value(resolved: Resolved, key: Where) -> Any:
    """Return the value of a setting; None: it is not set."""
    if resolved.point is not None and key in resolved.point.values:
        return resolved.point.values[key]
    found: Any = resolved.tree
    for part in key:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _shown(value: Any) -> str:
    text = "-" if value is None else value_in_words(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def write_sweeps(done: Sequence[QueueResult], recipes: Sequence[Resolved]) -> None:
    """Write ``sweep.csv`` into the folder of each sweep of a queue.

    Raises:
        OSError: A file cannot be written.
    """
    results = [*done, *(QueueResult(each, _NOT_STARTED) for each in recipes[len(done) :])]
    of_folder: dict[Path, list[QueueResult]] = {}
    for each in results:
        if each.resolved.point is not None:
            of_folder.setdefault(each.resolved.point.folder, []).append(each)
    for folder, runs in of_folder.items():
        keys = dict.fromkeys(key for each in runs if each.resolved.point for key in each.resolved.point.values)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / SWEEP_FILE, [_row(each, list(keys), folder) for each in runs])


def _row(result: QueueResult, keys: Sequence[Where], folder: Path) -> dict[str, str | float | None]:
    recipe, best = result.resolved.recipe, result.best
    row: dict[str, str | float | None] = {"run": recipe.run.name}
    for key in keys:
        value = _value(result.resolved, key)
        row[dotted(key)] = value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)
    row["what"] = result.what
    row["monitor"], row["best"] = recipe.monitor.metric, None if best is None else best.value
    row["best_epoch"] = None if best is None else best.epoch
    row["folder"] = None
    if result.folder is not None:
        path = result.folder.absolute()
        row["folder"] = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    return row
