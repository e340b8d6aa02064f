"""``trainkit init``: looks at data, and writes a recipe for it with a comment at each value that says why.

Which component reads the data, and which planner plans for it, the components say themselves (`Data.recognise`,
`Planner`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from trainkit import registry
from trainkit.cli.output import clear_progress, echo, show_progress
from trainkit.contracts import Data, Planner, Progress
from trainkit.errors import ComponentError, RecipeError, TrainkitError, did_you_mean
from trainkit.words import some_of

_SECONDS_BETWEEN = 10.0
_UNITS = {"": 1.0, "g": 1.0, "gb": 1.0, "gib": 2**30 / 1e9, "m": 1e-3, "mb": 1e-3, "mib": 2**20 / 1e9, "tb": 1e3}
_MOST_FOLDERS = 50  # that are looked into for data, where there is none in the folder itself


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


def recognised(path: Path, use: str | None) -> tuple[str, type[Data], Mapping[str, Any]]:
    """Return the component of data that knows what is at a path: its name, its class, and its settings.

    Args:
        path: A folder or a file.
        use: The component to take; None: the only one that recognises it.

    Raises:
        RecipeError: None recognises it, or several do.
    """
    known = [each for each in registry.registered(Data.entry_points) if use in (None, each.name)]
    if not known:
        names = {each.name for each in registry.registered(Data.entry_points)}
        raise RecipeError(f'no component of data is named "{use}"; {did_you_mean(str(use), names)}')
    asked, failed = _asked(path, known)
    if len(asked) == 1:
        return asked[0]
    if asked:
        several = [name for name, _, _ in asked]
        raise RecipeError(f"{path} is recognised by {some_of(several)}: say which with --data {several[0]}")
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
    raise RecipeError(
        f"{path} is recognised by no component of data; asked: {', '.join(each.name for each in known)}{reasons}"
        f"{_elsewhere(path, known)}"
    )


def _asked(
    path: Path, known: list[registry.RegisteredComponent]
) -> tuple[list[tuple[str, type[Data], Mapping[str, Any]]], dict[str, str]]:
    """Ask components whether they recognise what is at a path; return those that do, and why others could not say."""
    found: list[tuple[str, type[Data], Mapping[str, Any]]] = []
    failed = {}
    for each in known:
        try:
            cls = each.load()
            settings = cls.recognise(path)
        except ComponentError as error:
            failed[each.name] = str(error)
        except Exception as error:  # a component of anybody: the others are asked all the same
            failed[each.name] = str(error) if isinstance(error, TrainkitError) else f"{type(error).__name__}: {error}"
        else:
            if settings is not None:
                found.append((registry.name_of(cls), cls, settings))
    return found, failed


def _elsewhere(path: Path, known: list[registry.RegisteredComponent]) -> str:
    """Return a hint at folders below in which there are data."""
    if not path.is_dir():
        return ""
    below = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    hits = [f"{each.name} ({name})" for each in below[:_MOST_FOLDERS] for name, _, _ in _asked(each, known)[0]]
    return f"\n  but there are data in it: {some_of(hits)}" if hits else ""


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
