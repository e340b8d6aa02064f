"""``trainkit init``: looks at data, and writes a recipe for it with a comment at each value that says why.

Which component reads the data, and which planner plans for it, the components say themselves (`Data.recognise`,
`Planner`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from trainkit import registry
from trainkit.cli.output import clear_progress, echo, show_progress
from trainkit.contracts import Data, Planner, Progress
from trainkit.errors import RecipeError
from trainkit.recipe.recognised import recognised

_SECONDS_BETWEEN = 10.0
_UNITS = {"": 1.0, "g": 1.0, "gb": 1.0, "gib": 2**30 / 1e9, "m": 1e-3, "mb": 1e-3, "mib": 2**20 / 1e9, "tb": 1e3}


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit init Task04_Hippocampus > my.toml\n"
    "  trainkit init BraTS2021 --memory 12GB --network resenc --out my.toml\n"
    "  trainkit init scan.h5 --out scan.toml\n\n"
    "Exit codes: 0 a recipe was written, 1 the data cannot be read, 2 nothing recognises it or the command line is "
    "wrong."
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--memory", default="8GB", show_default=True, help="Memory of the device that training may take.")
@click.option("--network", help="The network to plan, for example resenc.")
@click.option("--data", "use", metavar="NAME", help="The component that reads the data, if several could.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A new file for the recipe.")
def command(path: Path, memory: str, network: str | None, use: str | None, out: Path | None) -> None:
    """Look at the data at PATH and print a recipe for it.

    PATH is a folder of cases, or a file. Every value of the recipe has a comment that says why. What the data do not
    say is a placeholder, which check refuses. Progress goes to standard error, and the recipe to standard output.
    """
    if out is not None and out.exists():
        raise RecipeError(f"{out} exists, and nothing is overwritten: give another name after --out")
    if not path.exists():
        raise RecipeError(f"{path}: there is no such file or folder")
    named, cls, settings = recognised(path.absolute(), use)
    planner = _planner(cls, _gigabytes(memory), network)
    lines = []
    shown = time.monotonic()
    for each in planner.draft(named, cls, settings):
        if not isinstance(each, Progress):
            lines.append(each)
        elif sys.stderr.isatty():
            show_progress(each)
        elif time.monotonic() - shown > _SECONDS_BETWEEN:
            shown = time.monotonic()
            echo(f"{each.done} of {each.total} {each.what}", err=True)
    clear_progress()
    text = "\n".join(lines) + "\n"
    if out is None:
        echo(text, nl=False)
        return
    from trainkit.files.writing import written_whole

    with written_whole(out) as new:
        new.write_text(text, encoding="utf-8")
    echo(f"wrote {out}; next: trainkit check --data {out}", err=True)


def _planner(cls: type[Data], memory_gb: float, network: str | None) -> Planner:
    fitting = list(_planners(cls))
    if not fitting:
        raise RecipeError(f"no planner is installed for data of the kind {cls.__name__}")
    try:
        planner: Planner = fitting[0](memory_gb=memory_gb, network=network)
    except ValueError as error:
        raise RecipeError(f"{error}") from error
    return planner


def _planners(cls: type[Data]) -> Iterator[type[Planner]]:
    for each in registry.registered(Planner.entry_points):
        found = each.load()
        if issubclass(cls, found.accepts):
            yield found


def _gigabytes(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise RecipeError(f'--memory is a size such as 8GB or 11.5GB, got "{text}"')
    return float(match[1]) * _UNITS[match[2]]
