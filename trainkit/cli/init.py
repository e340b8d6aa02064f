"""``trainkit init``: looks at data, and writes a recipe for it with a comment at each value that says why.

Which component reads the data, what is in them, and which planner plans for them, the components say themselves
(`Data.recognise`, `Data.contents`, `Planner`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from trainkit import registry
from trainkit.cli.options import JSON
from trainkit.cli.output import clear_progress, echo, echo_json, show_progress, styled
from trainkit.cli.plugin_inspection import refuse_harmful
from trainkit.contracts import Data, Figures, Planner, Problem, Progress, Recognised
from trainkit.errors import ComponentError, RecipeError
from trainkit.recipe.recognised import looked_into, recognised, with_sets
from trainkit.recipe.schema import DIRECTIVE

_SECONDS_BETWEEN = 10.0
_UNITS = {"": 1.0, "g": 1.0, "gb": 1.0, "gib": 2**30 / 1e9, "m": 1e-3, "mb": 1e-3, "mib": 2**20 / 1e9, "tb": 1e3}


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit init Task04_Hippocampus > my.toml\n"
    "  trainkit init BraTS2021 --memory 12GB --network resenc --out my.toml\n"
    "  trainkit init scan.h5 --out scan.toml\n"
    "  trainkit init scan.h5 --calibrate --set data.energy_kev=80 --out scan.toml\n\n"
    "Exit codes: 0 a recipe was written, 1 the data cannot be read, 2 nothing recognises it or the command line is "
    "wrong, 3 a recipe was written, but it is doubtful; the output says why."
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--memory", default="8GB", show_default=True, help="Memory of the device that training may take.")
@click.option("--network", help="The network to plan, for example resenc.")
@click.option("--data", "use", metavar="NAME", help="The component that reads the data, if several could.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A new file for the recipe.")
@click.option(
    "--set",
    "sets",
    metavar="data.KEY=VALUE",
    multiple=True,
    help="Say what the data do not, for example --set data.energy_kev=80. Can be given several times.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Find out by trials how the data were taken: for a scan, how it lies against the detector, defocus, rotation "
    "and step.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where --calibrate draws what it found, as PNG; if left out, beside the file that --out names.",
)
@JSON
@click.pass_context
def command(
    context: click.Context,
    path: Path,
    memory: str,
    network: str | None,
    use: str | None,
    out: Path | None,
    sets: tuple[str, ...],
    calibrate: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Look at the data at PATH and print a recipe for it.

    PATH is a folder of cases, or a file. Every value of the recipe has a comment that says why. What the data do not
    say is a placeholder, which check refuses. Progress goes to standard error, and the recipe to standard output.

    With --calibrate, what the data do not say is found out by trials as far as that is possible, and the recipe holds
    the evidence as a table. Where trials cannot decide, recipe and output say so.
    """
    if picture is not None and not calibrate:
        raise RecipeError("--picture is what --calibrate draws: give that too")
    if calibrate and picture is None and out is not None:
        picture = out.with_suffix(".png")
    for new in (out, picture):
        if new is not None and new.exists():
            raise RecipeError(f"{new} exists, and nothing is overwritten: give another name after --out or --picture")
    if not path.exists():
        raise RecipeError(f"{path}: there is no such file or folder")
    refuse_harmful([Data.entry_points, Planner.entry_points])
    found = recognised(path.absolute(), use)
    found = with_sets(found, sets)
    planner = _planner(found.data, _gigabytes(memory), network, calibrate, picture)
    lines, doubts, figures = list[str](), list[Problem](), dict[str, Any]()
    shown = time.monotonic()
    for each in _drafted(found, planner):
        if isinstance(each, Problem):
            doubts.append(each)
        elif isinstance(each, Figures):
            figures.update(each.values)
        elif not isinstance(each, Progress):
            lines.append(each)
        elif sys.stderr.isatty():
            show_progress(each)
        elif time.monotonic() - shown > _SECONDS_BETWEEN:
            shown = time.monotonic()
            echo(f"{each.done} of {each.total} {each.what}", err=True)
    clear_progress()
    text = "\n".join([DIRECTIVE, *lines]) + "\n"
    if out is None and not as_json:
        echo(text, nl=False)
    if out is not None:
        from trainkit.files.writing import written_whole

        with written_whole(out) as file:
            file.write_text(text, encoding="utf-8")
    for doubt in doubts:
        echo(styled("warning: ", fg="yellow", bold=True), doubt.message, err=True)
    if picture is not None and not picture.exists():
        picture = None
    if as_json:
        said = [doubt.message for doubt in doubts]
        echo_json("recipe", text=text, out=out, picture=picture, doubts=said, figures=figures)
    if picture is not None:
        echo(f"wrote {picture}", err=True)
    if out is not None:
        echo(f"wrote {out}; next: trainkit check --data {out}", err=True)
    context.exit(3 if doubts else 0)


def _drafted(found: Recognised, planner: Planner) -> Iterator[str | Progress | Problem | Figures]:
    for each in looked_into(found):
        if isinstance(each, Recognised):
            found = each
        else:
            yield each
    yield from planner.draft(found)


def _planner(cls: type[Data], memory_gb: float, network: str | None, calibrate: bool, picture: Path | None) -> Planner:
    fitting = list(_planners(cls))
    if not fitting:
        raise RecipeError(f"no planner is installed for data of the kind {cls.__name__}")
    if calibrate and not fitting[0].calibrates:
        raise RecipeError("--calibrate: nothing about data of this kind is found out by trials")
    try:
        planner: Planner = fitting[0](memory_gb=memory_gb, network=network, calibrate=calibrate, picture=picture)
    except ValueError as error:
        raise RecipeError(f"{error}") from error
    return planner


def _planners(cls: type[Data]) -> Iterator[type[Planner]]:
    for each in registry.registered(Planner.entry_points):
        try:
            found = each.load()
        except ComponentError as error:
            echo(styled("warning: ", fg="yellow", bold=True), f"this planner is left out: {error}", err=True)
            continue
        if issubclass(found, Planner) and issubclass(cls, found.accepts):
            yield found


def _gigabytes(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise RecipeError(f'--memory is a size such as 8GB or 11.5GB, got "{text}"')
    return float(match[1]) * _UNITS[match[2]]
