"""Finds the component of data that knows what is at a path, for ``trainkit init``: each says so itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit import registry
from trainkit.contracts import Data, Problem, Progress, Recognised
from trainkit.errors import ComponentError, RecipeError, TrainkitError, did_you_mean
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.source import read_settings
from trainkit.recipe.structure import Structurer, as_tables
from trainkit.recipe.tables import to_tables
from trainkit.words import some_of

_MOST_FOLDERS = 50  # that are looked into for data, where there is none in the folder itself


def recognised(path: Path, use: str | None) -> Recognised:
    """Return the component of data that knows what is at a path, and its settings.

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
        several = [each.use for each in asked]
        raise RecipeError(f"{path} is recognised by {some_of(several)}: say which with --data {several[0]}")
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
    raise RecipeError(
        f"{path} is recognised by no component of data; asked: {', '.join(each.name for each in known)}{reasons}"
        f"{_elsewhere(path, known)}"
    )


def looked_into(found: Recognised) -> Iterator[Progress | Problem | Recognised]:
    """Yield progress and doubts of a look at what was recognised, and at last the same with what is in it.

    Args:
        found: What was recognised.

    Raises:
        DataError: The data cannot be read.
    """
    for each in found.data.contents(found.settings):
        if isinstance(each, Progress | Problem):
            yield each
        else:
            found = found._replace(contents=each)
    yield found


def with_sets(known: Recognised, sets: Sequence[str]) -> Recognised:
    """Return recognised data with the settings that a user says, which take precedence.

    Args:
        known: The component, and the settings with which it recognised the data.
        sets: The values of ``--set``, such as "data.energy_kev=80".

    Raises:
        RecipeError: They are wrong, or not about [data].
    """
    if not sets:
        return known
    settings = known.settings
    layer, found = read_settings(sets)
    if others := [table for table in layer.tree if table != "data"]:
        raise RecipeError(
            f"--set {others[0]}…: says what is known about the data, data.KEY=VALUE; change all else in the recipe"
        )
    texts = {where: origin.text for where, origin in layer.origins.items() if origin.text is not None}
    structurer = Structurer(True, texts)
    said = layer.tree.get("data", {})
    merged = _over(as_tables(settings), said)
    made = structurer.settings(merged, known.data, ("data",))
    found += structurer.findings
    if found:
        raise InvalidRecipe(each.located(layer.origins, "the command line") for each in found)
    tables = to_tables(made)
    changed = {key: tables[key] for key in merged if key not in settings or merged[key] != settings[key]}
    return known._replace(settings={**settings, **changed}, told=tuple(said))


def _over(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        merged[key] = _over(below, value) if both and isinstance(below, dict) else value
    return merged


def _asked(path: Path, known: list[registry.RegisteredComponent]) -> tuple[list[Recognised], dict[str, str]]:
    """Ask components whether they recognise what is at a path; return those that do, and why others could not say."""
    found = list[Recognised]()
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
                found.append(Recognised(registry.name_of(cls), cls, settings))
    return found, failed


def _elsewhere(path: Path, known: list[registry.RegisteredComponent]) -> str:
    """Return a hint at folders below in which there are data."""
    if not path.is_dir():
        return ""
    below = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    hits = [f"{each.name} ({name})" for each in below[:_MOST_FOLDERS] for name, *_ in _asked(each, known)[0]]
    return f"\n  but there are data in it: {some_of(hits)}" if hits else ""
