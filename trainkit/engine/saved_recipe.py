"""Reads the recipe in a checkpoint with the packages that are installed now, which may be others than then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from trainkit import registry
from trainkit.errors import RecipeError
from trainkit.recipe.origin import dotted
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text, write
from trainkit.recipe.source import read

if TYPE_CHECKING:
    from trainkit.recipe.positions import Where
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe
    from trainkit.recipe.structure import AllowCode

_PLAN = ("run", "monitor", "optimizer", "scheduler", "groups")


def resolve_saved(
    text: str, components: Sequence[Mapping[str, Any]], source: str, sets: Sequence[str], allow_code: AllowCode
) -> Resolved:
    """Resolve the recipe of a checkpoint. A name that several packages register means that of the package it used.

    Args:
        text: The recipe.
        components: What the checkpoint says of the components that it used.
        source: The name of the recipe in messages.
        sets: Changes to it, in the form ``a.b=c``.
        allow_code: See `AllowCode`.

    Raises:
        RecipeError: The recipe cannot be used as it is; the message names packages that are others than then.
    """
    read(text, source, Path.cwd(), resolved=True)  # refuses what is no TOML or passes a limit
    try:
        return resolve_text(
            with_packages(text, components), Path.cwd(), sets, source=source, allow_code=allow_code, resolved=True
        )
    except InvalidRecipe as error:
        news = list(other_packages(components))
        if not news:
            raise
        raise RecipeError("\n".join([*news, _ADVICE, str(error)])) from error


_ADVICE = (
    "the recipe in the checkpoint cannot be used with what is installed now. Change it with --set some.key=value, take "
    "a setting away with --set 'drop=[\"some.key\"]', or give another recipe with --recipe"
)


def recipe_then(
    text: str, components: Sequence[Mapping[str, Any]], now: Resolved, allow_code: AllowCode
) -> tuple[Recipe, bool]:
    """Return the recipe of a checkpoint to compare with, and whether all of it could be read.

    Of a recipe whose components are no longer there, only what decides the learning rates is read, as far as possible;
    the rest is as it is now.

    Raises:
        RecipeError: The recipe names code that may not be imported.
    """
    try:
        return resolve_saved(text, components, "the checkpoint's recipe", (), allow_code).recipe, True
    except RecipeError:
        read(text, "the checkpoint's recipe", Path.cwd(), resolved=True)
        saved = tomli.loads(text)
        named = {str(table.get("use")) for _, table in _tables(saved)}
        if any(":" in use and not (allow_code if isinstance(allow_code, bool) else use in allow_code) for use in named):
            raise  # it is refused, not unreadable
    for tables in (_PLAN, _PLAN[:-1], _PLAN[:1]):
        tree = now.tree | {name: saved[name] for name in tables if name in saved}
        try:
            return resolve_saved(write(tree), components, "the checkpoint's recipe", (), True).recipe, False
        except RecipeError:
            continue
    return now.recipe, False


def other_packages(components: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each package that a checkpoint used and that is missing now, or has another version."""
    used = {each["package"]: each["version"] for each in components if each["package"]}
    for package, was in used.items():
        try:
            now = version(package)
        except PackageNotFoundError:
            advice = f"pip install {package}=={was}"
            yield f"the checkpoint was written with {package} {was}, which is not installed: {advice}"
            continue
        if now != was:
            yield f"the checkpoint was written with {package} {was}; installed is {package} {now}"


def with_packages(text: str, components: Sequence[Mapping[str, Any]]) -> str:
    """Return a recipe in which a name says its package (``package/name``) wherever it would mean another one now."""
    known = {(each["where"], each["use"]): each for each in components}
    tree = tomli.loads(text)
    changed = False
    for where, table in _tables(tree):
        saved = known.get((dotted(where), str(table.get("use"))))
        if saved is None or not saved["package"] or "/" in saved["use"]:
            continue
        packages = {each.package for each in registry.registered(saved["group"]) if each.name == saved["use"]}
        if packages - {saved["package"]}:
            table["use"] = f"{saved['package']}/{saved['use']}"
            changed = True
    return write(tree) if changed else text


def _tables(node: Any, where: Where = ()) -> Iterator[tuple[Where, dict[str, Any]]]:
    if isinstance(node, dict):
        yield where, node
        for key, each in node.items():
            yield from _tables(each, (*where, key))
    elif isinstance(node, list):
        for index, each in enumerate(node):
            yield from _tables(each, (*where, index))
