"""The table of the trials of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from trainkit.contracts import Monitor
from trainkit.engine.tuning.records import Became, TrialRecord, best_trials
from trainkit.recipe.search import Parameter, shown_in_short

_MOST_SHOWN = 30  # lines on the terminal; the file has all
_LONGEST_REASON = 100  # characters; the file has all
_WIDEST = 40  # characters of a value
_ORDER: tuple[Became, ...] = ("finished", "running", "ended early", "failed")


def in_short(records: Sequence[TrialRecord]) -> str:
    """Return how many trials there are of each sort, in words.

    Example:
        >>> in_short([TrialRecord(0, "finished", {}), TrialRecord(1, "failed", {})])
        '1 finished, 1 failed'
    """
    counts = {what: sum(each.became == what for each in records) for what in _ORDER}
    return ", ".join(f"{number} {what}" for what, number in counts.items() if number)


def by_quality(records: Sequence[TrialRecord], judged_by: Sequence[Monitor]) -> list[TrialRecord]:
    """Return trials, the best ones first, and those without values last."""
    sign = 1.0 if judged_by[0].mode == "min" else -1.0
    best = [each.number for each in best_trials(records, judged_by)]

    def place(each: TrialRecord) -> tuple[int, bool, float, int]:
        value = each.values[0] if each.values is not None else each.reached
        return _ORDER.index(each.became), each.number not in best, 0.0 if value is None else sign * value, each.number

    return sorted(records, key=place)


def table(
    records: Sequence[TrialRecord], judged_by: Sequence[Monitor], parameters: Sequence[Parameter]
) -> Iterator[str]:
    """Yield the lines of the table for the terminal: the best trials, and how many others there are.

    Args:
        records: The trials.
        judged_by: The values by which they are judged.
        parameters: The searched keys.
    """
    if not records:
        return
    ordered = by_quality(records, judged_by)
    best = {each.number for each in best_trials(records, judged_by)}
    names = short_names([each.name for each in parameters])
    head = ["trial", *(each.metric for each in judged_by), "epochs", "took", *names, "what"]
    lines = [head]
    for each in ordered[:_MOST_SHOWN]:
        mark = "*" if each.number in best else " "
        values = ["-"] * len(judged_by)
        if each.values is not None:
            values = [f"{value:.5g}" for value in each.values]
        elif each.reached is not None and len(judged_by) == 1:
            values = [f"({each.reached:.5g})"]
        took = "-" if each.same_as is not None else str(timedelta(seconds=round(each.seconds)))
        cells = [cell(each.parameters.get(p.name), p) for p in parameters]
        lines.append([f"{mark}{each.number}", *values, str(each.epochs), took, *cells, _what(each)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [text.rjust(width) for text, width in zip(line[:-1], widths, strict=False)]
        yield "  ".join([*cells, line[-1]])
    if len(ordered) > _MOST_SHOWN:
        yield f"… and {len(ordered) - _MOST_SHOWN} more: {in_short(ordered[_MOST_SHOWN:])}"
    explained = ["* best" if len(judged_by) == 1 else "* on the Pareto front: no other trial beats it in all values"]
    if len(judged_by) == 1 and any(each.values is None and each.reached is not None for each in ordered[:_MOST_SHOWN]):
        explained.append("in parentheses: the last value of a trial that did not run to its end")
    yield "; ".join(explained)


def cell(value: object, parameter: Parameter) -> str:
    """Return the value of a key in a table; "-" if it was not searched in this trial."""
    if value is None:
        return "-"
    text = shown_in_short(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _what(each: TrialRecord) -> str:
    if each.same_as is not None:
        return f"{each.became}, as trial {each.same_as}"
    if each.became == "failed":
        reason = each.reason if len(each.reason) <= _LONGEST_REASON else f"{each.reason[:_LONGEST_REASON]}…"
        return f"failed: {reason}"
    return f"{each.became}, but doubtful" if each.doubts else each.became


def short_names(names: Sequence[str]) -> list[str]:
    """Return as few last parts of dotted keys as tell them apart, and two at least.

    Example:
        >>> short_names(["groups.object.lr", "groups.probe.lr", "model.channels"])
        ['object.lr', 'probe.lr', 'model.channels']
    """
    parts = [name.split(".") for name in names]
    found = []
    for number, own in enumerate(parts):
        others = [each for index, each in enumerate(parts) if index != number]
        fewest = next((n for n in range(2, len(own) + 1) if all(each[-n:] != own[-n:] for each in others)), len(own))
        found.append(".".join(own[-fewest:]))
    return found


def rows(
    records: Sequence[TrialRecord], judged_by: Sequence[Monitor], parameters: Sequence[Parameter]
) -> list[dict[str, str | float | None]]:
    """Return the rows of the table as a file, in the order of the trials."""
    best = {each.number for each in best_trials(records, judged_by)}
    made: list[dict[str, str | float | None]] = []
    for each in records:
        row: dict[str, str | float | None] = {"trial": each.number, "what": each.became}
        row["best"] = "yes" if each.number in best else ""
        for index, judged in enumerate(judged_by):
            row[judged.metric] = None if each.values is None else each.values[index]
        if len(judged_by) == 1:
            row["last_value"] = each.reached
        row |= {"epoch": each.epoch, "epochs": each.epochs, "seconds": round(each.seconds, 3)}
        for parameter in parameters:
            value = each.parameters.get(parameter.name)
            row[parameter.name] = str(value).lower() if isinstance(value, bool) else value
        row |= {"doubtful": " ".join(each.doubts), "reason": each.reason, "same_as": each.same_as, "run": each.folder}
        made.append(row)
    return made
