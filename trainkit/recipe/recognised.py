"""Finds the component of data that knows what is at a path, for ``trainkit init``: each says so itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainkit import registry
from trainkit.contracts import Data
from trainkit.errors import ComponentError, RecipeError, TrainkitError, did_you_mean
from trainkit.words import some_of

_MOST_FOLDERS = 50  # that are looked into for data, where there is none in the folder itself


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
