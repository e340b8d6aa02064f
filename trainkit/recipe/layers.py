"""Merges the layers of a recipe: defaults, then the recipes that it extends, then the file itself, then ``--set``.

Tables are merged key by key; any other value replaces the inherited one. A layer that changes ``use`` drops the
inherited keys beside it, because they belong to another component. A layer that gives one of two settings that exclude
each other (``epochs`` and ``steps``) drops the other one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.errors import RecipeError, did_you_mean
from trainkit.recipe.origin import Origin, dotted
from trainkit.recipe.positions import Where, dotted_key
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.root import exclusive_pair
from trainkit.recipe.source import Layer, PathString, forget, read

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def load(path: Path, source: str) -> Layer:
    """Read a recipe file.

    Args:
        path: The file.
        source: The name of the file in messages.

    Raises:
        InvalidRecipe: The file is missing, cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        folders = [folder for folder in (path.parent, Path("recipes")) if folder.is_dir()]
        near = {
            short_path(each) for folder in folders for each in folder.glob("*.toml") if each.name != "pyproject.toml"
        }
        hint = did_you_mean(source, near) if near else f"there is no recipe in {path.parent.resolve()}"
        raise InvalidRecipe([Finding("there is no such file", hint=hint, origin=Origin(source))]) from error
    except OSError as error:
        raise InvalidRecipe([Finding(f"cannot be read: {error.strerror}", origin=Origin(source))]) from error
    except UnicodeDecodeError as error:
        raise InvalidRecipe([Finding(f"this is not UTF-8 text: {error}", origin=Origin(source))]) from error
    return read(text, source, path.resolve().parent)


def merge_parents(layer: Layer, chain: tuple[Path, ...] = ()) -> Layer:
    """Merge a recipe onto all recipes that it extends, from left to right.

    Args:
        layer: The recipe.
        chain: The files that extend this one, outermost first; the last one is the recipe itself.

    Raises:
        InvalidRecipe: A parent is missing or is not TOML, recipes extend each other in a circle, or ``drop`` names a
            key that is not inherited.
    """
    under = Layer({}, {})
    findings: list[Finding] = []
    for number, parent in enumerate(layer.extends):
        path = (parent.folder / Path(parent).expanduser()).resolve()
        place = Finding("", ("extends", number))
        try:
            if path in chain:
                circle = " extends ".join(short_path(each) for each in (*chain[chain.index(path) :], path))
                raise InvalidRecipe([attrs.evolve(place, message=f"recipes extend each other: {circle}")])
            if not path.is_file():
                hint = did_you_mean(path.name, [each.name for each in path.parent.glob("*.toml")])
                raise InvalidRecipe([attrs.evolve(place, message=f"there is no file {short_path(path)}", hint=hint)])
            under = merge(under, merge_parents(load(path, short_path(path)), (*chain, path)))
        except InvalidRecipe as error:
            findings += [finding.located(layer.origins, "") for finding in error.findings]
    if findings:
        raise InvalidRecipe(findings)
    return merge(under, layer)


def short_path(path: Path) -> str:
    """Return the path of a file relative to the working directory, or its absolute path if that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") or len(relative) < len(str(path)) else str(path)


def merge(under: Layer, over: Layer) -> Layer:
    """Return two layers as one.

    Args:
        under: The lower layer.
        over: The upper layer; its values replace those of the lower one.

    Raises:
        InvalidRecipe: The upper layer drops a key that the lower one does not have.
    """
    origins = dict(under.origins)
    tree, findings = under.tree, []
    for number, name in enumerate(over.drop):
        key = dotted_key(name)
        where: tuple[str, ...] = key[0] if key and key[1] == len(name) else ()
        if not where or not _has(tree, where):
            near = did_you_mean(name, [dotted(each) for each in _places(tree)])
            finding = Finding(f'"{name}" is not inherited, so it cannot be dropped', ("drop", number), hint=near)
            findings.append(finding.located(over.origins, ""))
            continue
        tree = _without(tree, where)
        forget(origins, where)
    if findings:
        raise InvalidRecipe(findings)
    tree = _merge(tree, over.tree, (), origins)
    return Layer(tree, origins | over.origins)


def _merge(under: dict[str, Any], over: dict[str, Any], where: Where, origins: dict[Where, Origin]) -> dict[str, Any]:
    if under.get("use", over.get("use")) != over.get("use", under.get("use")):
        for key in under:
            forget(origins, (*where, key))
        under = {}
    merged = dict(under)
    pair = exclusive_pair(where)
    if pair and (pair[0] in over) != (pair[1] in over):
        other = pair[0] if pair[1] in over else pair[1]
        merged.pop(other, None)
        forget(origins, (*where, other))
    for key, value in over.items():
        before = under.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = _merge(before, value, (*where, key), origins)
        else:
            if key in under:
                forget(origins, (*where, key))
            merged[key] = value
    return merged


def interpolate(layer: Layer) -> tuple[Layer, list[Finding]]:
    """Replace each ``${some.key}`` by the value of that setting.

    A string that consists of one reference becomes the value, with its type. Within a longer string, a reference is
    replaced by the value as text.

    Returns:
        The layer, and a finding for each reference that is unknown or refers to itself.
    """
    findings: list[Finding] = []

    def expand(value: Any, where: Where, chain: tuple[Where, ...]) -> Any:
        if isinstance(value, dict):
            return {key: expand(each, (*where, key), chain) for key, each in value.items()}
        if isinstance(value, list):
            return [expand(each, (*where, index), chain) for index, each in enumerate(value)]
        if not isinstance(value, PathString):
            return value
        whole = _REFERENCE.fullmatch(value)
        try:
            if whole:
                found = look_up(whole[1], where, chain)
                is_new = isinstance(found, str) and not isinstance(found, PathString)
                return PathString(found, value.folder) if is_new else found
            text = _REFERENCE.sub(lambda each: written(look_up(each[1], where, chain)), value)
            return PathString(text, value.folder)
        except _BadReferenceError as error:
            findings.append(Finding(str(error), error.where or where, hint=error.hint))
            return value

    def look_up(name: str, where: Where, chain: tuple[Where, ...]) -> Any:
        key = dotted_key(name)
        target = key[0] if key and key[1] == len(name) else ()
        if not target or not _has(layer.tree, target):
            hint = did_you_mean(name, [dotted(each) for each in _places(layer.tree)])
            raise _BadReferenceError(f'"${{{name}}}" is not set in this recipe', hint)
        steps = (*chain, where)
        for number, step in enumerate(steps):
            if step[: len(target)] == target:
                circle = " -> ".join(dotted(each) for each in (*steps[number:], target))
                raise _BadReferenceError(f"refers to itself: {circle}", where=step)
        return expand(_at(layer.tree, target), target, steps)

    def written(value: Any) -> str:
        if isinstance(value, dict | list):
            raise _BadReferenceError("a reference to a table or a list must be the whole string")
        return str(value).lower() if isinstance(value, bool) else str(value)

    return attrs.evolve(layer, tree=expand(layer.tree, (), ())), findings


class _BadReferenceError(RecipeError):
    def __init__(self, message: str, hint: str = "", where: Where = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.where = where


def _has(tree: Any, where: Sequence[str | int]) -> bool:
    for part in where:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def _at(tree: Any, where: Where) -> Any:
    for part in where:
        tree = tree[part]
    return tree


def _without(tree: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = where
    if not rest:
        return {key: value for key, value in tree.items() if key != first}
    return tree | {first: _without(tree[first], tuple(rest))}


def _places(tree: dict[str, Any], where: Where = ()) -> list[Where]:
    found: list[Where] = []
    for key, value in tree.items():
        found.append((*where, key))
        if isinstance(value, dict):
            found += _places(value, (*where, key))
    return found
