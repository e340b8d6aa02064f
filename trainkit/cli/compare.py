"""``trainkit compare``: compares runs."""

from __future__ import annotations

import shutil
import string
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.options import JSON
from trainkit.cli.output import echo, echo_json, styled

if TYPE_CHECKING:
    from trainkit.runs.comparison import Comparison
    from trainkit.runs.record import RunRecord
    from trainkit.runs.values import Value


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit compare ptycho_staged 1a2b3c4d\n"
    "  trainkit compare runs/lr_sweep/* --to 'val/loss<=0.02' --plot lr.png\n\n"
    "A run is named by its folder, its name (the newest of that name), or its id as trainkit runs prints it."
)
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=completion.runs)
@click.option(
    "--to",
    metavar="VALUE",
    help="Tell when each run reached a value, for example 'val/dice>=0.8'. Not given: the worst of the best values.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Where the curves are drawn, as a PNG.")
@click.option("--no-plot", is_flag=True, help="Draw no curves.")
@JSON
def command(names: tuple[str, ...], to: str | None, plot: Path | None, no_plot: bool, as_json: bool) -> None:
    """Compare two or more runs: settings, versions, data, values, and where their numbers begin to differ.

    Runs are ranked by their monitored values only if these mean the same: the same metric, losses, evaluated data and
    inference. Otherwise, the reason is said. How runs differ in the bits is looked for in their values, and in the
    checkpoints that they have kept.
    """
    from trainkit.runs.comparison import compare
    from trainkit.runs.finding import run_named

    runs = list({run.folder.resolve(): run for run in map(run_named, names)}.values())
    if len(runs) < 2:
        raise click.UsageError(f"a comparison needs at least two runs; these are {runs[0].folder} alone")
    found = compare(runs, to)
    labels = [f"{letter}  {run.name} {_end(run)}" for letter, run in zip(_letters(len(runs)), runs, strict=True)]
    picture = None if no_plot else _drawn(found, labels, plot)
    if as_json:
        echo_json("comparison", **_as_json(found, picture))
        return
    width = max(60, shutil.get_terminal_size((80, 24)).columns)
    for kind, text in _lines(found, labels):
        for line in _wrapped(text, width):
            echo(styled(line, bold=True) if kind == "head" else line)
    if picture is not None:
        echo()
        echo(f"curves: {picture}")


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, which keeps its indentation."""
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _letters(number: int) -> list[str]:
    letters = string.ascii_uppercase
    return [letters[i] if number <= len(letters) else f"{i + 1}" for i in range(number)]


def _end(run: RunRecord) -> str:
    from trainkit.engine.finding import short_id

    return short_id(run.id)


def _drawn(found: Comparison, labels: Sequence[str], plot: Path | None) -> Path | None:
    from trainkit.errors import TrainkitError
    from trainkit.runs.curves_picture import draw
    from trainkit.runs.meaning import why_another_meaning

    if plot is None:
        ends = "-".join(_end(run) for run in found.runs[:4])
        plot = Path(f"compare-{ends}{'-and-more' if len(found.runs) > 4 else ''}.png")

    def why_other(name: str) -> list[str]:
        return [why for other in found.runs[1:] for why in why_another_meaning(found.runs[0], other, name)]

    try:
        return plot if draw(plot, found.runs, labels, why_other) else None
    except OSError as error:
        raise TrainkitError(
            f"{plot} cannot be written ({error.strerror or error}); give another file with --plot, or --no-plot"
        ) from error


def _lines(found: Comparison, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    letters = [label.partition(" ")[0] for label in labels]
    for label, run in zip(labels, found.runs, strict=True):
        yield "", f"{label}  {run.state.name}, {run.folder}"
        for problem in run.problems:
            yield "", f"   damaged: {problem}"
    yield "", ""
    yield "head", "settings that differ"
    yield from _settings(found, letters)
    if found.conditions:
        yield "", ""
        yield "head", "versions and machines that differ"
        for name, values in found.conditions.items():
            yield "", f"  {name}: {', '.join(f'{a} {value}' for a, value in zip(letters, values, strict=True))}"
    yield "", ""
    yield "head", "data"
    if not any(found.data):
        yield "", "  the same, as far as their fingerprints tell"
    for letter, lines in zip(letters[1:], found.data, strict=True):
        for line in lines:
            yield "", f"  {letter} against {letters[0]}: {line}"
    yield "", ""
    yield from _values(found, letters)
    yield "", ""
    yield "head", f"where the numbers begin to differ from those of {letters[0]}"
    for letter, (of_values, of_checkpoints) in zip(letters[1:], found.divergences, strict=True):
        yield "", f"  {letter}: {of_values}"
        began = found.runs[letters.index(letter)].parent
        if began is not None and began.run == found.runs[0].id:
            yield "", f"     it began from a checkpoint of {letters[0]}, after {began.epoch} epochs"
        for line in of_checkpoints.lines():
            yield "", f"     checkpoints: {line}"


def _settings(found: Comparison, letters: Sequence[str]) -> Iterator[tuple[str, str]]:
    from trainkit.runs.lines import in_words
    from trainkit.runs.settings import NOT_SET

    shown = [each for each in found.settings if each.key not in ("run.name", "run.dir")]
    for each in shown:
        yield "", f"  {each.key}"
        for letter, value, origin in zip(letters, each.values, each.origins, strict=True):
            text = "not set" if value is NOT_SET else in_words(value)
            yield "", f"    {letter}  {text}{f'  ({origin})' if origin and value is not NOT_SET else ''}"
    if not shown:
        yield "", "  none"


def _values(found: Comparison, letters: Sequence[str]) -> Iterator[tuple[str, str]]:
    from trainkit.words import duration

    letter_of = {id(run): letter for letter, run in zip(letters, found.runs, strict=True)}
    for members, _ in found.blocks:
        monitor = members[0].monitor
        if monitor is None:
            yield "head", f"{letter_of[id(members[0])]}: what is monitored is not known"
            continue
        yield "head", f"{monitor.metric} ({'lower' if monitor.mode == 'min' else 'higher'} is better)"
        head = f"  {'':<3}{'FINAL':>12}{'BEST':>12}{'AT':>8}{'EPOCHS':>8}{'TIME':>8}"
        yield "", head + (f"   {found.target}" if found.target is not None else "")
        for run in members:
            best, last = run.best, run.values.last(monitor.metric)
            reached = found.reached[list(found.runs).index(run)]
            yield (
                "",
                f"  {letter_of[id(run)]:<3}{_number(last):>12}{_number(best):>12}"
                f"{'' if best is None else _place(best):>8}{run.values.epochs:>8}"
                f"{duration(_seconds(run)):>8}{_reached(reached, found)}",
            )
        ranked = found.ranked(members)
        if len(ranked) > 1:
            best, second = (run.best for run in ranked[:2])
            assert best is not None
            assert second is not None
            if best.value == second.value:
                yield "", f"  equal at best: {letter_of[id(ranked[0])]} and {letter_of[id(ranked[1])]}"
            else:
                by = abs(best.value - second.value)
                share = f", {100 * by / abs(second.value):.3g} %" if second.value else ""
                yield "", f"  best: {letter_of[id(ranked[0])]}, by {by:.3g}{share} before {letter_of[id(ranked[1])]}"
    yield "", "  TIME is that of the epochs, also of those before a resume."
    for members, reasons in found.blocks[1:]:
        names = ", ".join(letter_of[id(run)] for run in members)
        first = ", ".join(letter_of[id(run)] for run in found.blocks[0][0])
        yield "", f"  NOT RANKED: {names} against {first}, because the values do not mean the same:"
        for reason in reasons:
            yield "", f"    {reason}"
    if found.target is not None and found.target_differs:
        yield "", f"  {found.target.name} does not mean the same in all of them: {'; '.join(found.target_differs)}"
    for caution in found.cautions:
        yield "", f"  note: {caution}"


def _number(value: Value | None) -> str:
    return "" if value is None else f"{value.value:.5g}"


def _place(value: Value) -> str:
    return f"s{value.place.steps}" if value.place.inside else str(value.place.epochs)


def _seconds(run: RunRecord) -> float:
    return run.values.lines[-1][0].seconds if run.values.lines else 0.0


def _reached(value: Value | None, found: Comparison) -> str:
    from trainkit.words import duration

    if found.target is None:
        return ""
    if value is None:
        return "   never"
    return f"   {value.place}, {duration(value.place.seconds)}"


def _as_json(found: Comparison, picture: Path | None) -> dict[str, Any]:
    from trainkit.runs.settings import NOT_SET

    def result(run: RunRecord, reached: Value | None) -> dict[str, Any]:
        last = None if run.monitor is None else run.values.last(run.monitor.metric)
        return {
            "id": run.id,
            "name": run.name,
            "folder": str(run.folder),
            "state": run.state.name,
            "metric": None if run.monitor is None else run.monitor.metric,
            "final": None if last is None else last.value,
            "best": _value(run.best),
            "seconds": round(_seconds(run), 3),
            "reached": _value(reached),
        }

    return {
        "runs": [result(run, reached) for run, reached in zip(found.runs, found.reached, strict=True)],
        "comparable": found.is_ranked,
        "not_ranked": [
            {"runs": [run.id for run in members], "reasons": reasons} for members, reasons in found.blocks[1:]
        ],
        "ranking": [run.id for run in found.ranked(found.runs)] if found.is_ranked else None,
        "target": None if found.target is None else str(found.target),
        "settings": {
            each.key: {
                "values": [None if value is NOT_SET else value for value in each.values],
                "origins": list(each.origins),
            }
            for each in found.settings
        },
        "conditions": {name: list(values) for name, values in found.conditions.items()},
        "data": [list(each) for each in found.data],
        "notes": list(found.cautions),
        "first_difference": [
            {
                "values": {
                    "equal_to_epoch": of_values.equal_to,
                    "at": None if of_values.at is None else str(of_values.at),
                    "names": list(of_values.names),
                },
                "checkpoints": {
                    "equal": list(of_checkpoints.equal),
                    "first_that_differs": of_checkpoints.file,
                    "skipped": list(of_checkpoints.skipped),
                },
            }
            for of_values, of_checkpoints in found.divergences
        ],
        "curves": None if picture is None else str(picture),
    }


def _value(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "value": value.value,
        "epochs": value.place.epochs,
        "steps": value.place.steps,
        "seconds": round(value.place.seconds, 3),
    }
