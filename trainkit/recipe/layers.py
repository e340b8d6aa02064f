"""Merges the layers of a recipe: defaults, then the recipes that it extends, then the file itself, then ``--set``.

Tables are merged key by key; any other value replaces the inherited one. A layer that changes ``use`` drops the
inherited keys beside it, because they belong to another component. A layer that gives one of two settings that exclude
each other (``epochs`` and ``steps``) drops the other one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainkit.errors import did_you_mean
from trainkit.recipe.limits import MOST_FILES, read_file
from trainkit.recipe.origin import Origin, dotted
from trainkit.recipe.positions import Where, dotted_key
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.references import has, places
from trainkit.recipe.root import exclusive_pair
from trainkit.recipe.shipped import shipped
from trainkit.recipe.source import Layer, PathString, forget, read


def load(path: Path, source: str) -> Layer:
    """Read a recipe file.

    Args:
        path: The file.
        source: The name of the file in messages.

    Raises:
        InvalidRecipe: The file is missing, cannot be read, or is not TOML.
    """
    try:
        text = read_file(path)
    except FileNotFoundError as error:
        folders = [folder for folder in (path.parent, Path("recipes")) if folder.is_dir()]
        near = {
            short_path(each) for folder in folders for each in folder.glob("*.toml") if each.name != "pyproject.toml"
        }
        names = set() if path.suffix or path.parent != Path() else set(shipped())  # a bare name, as of those that come
        hint = f"there is no recipe in {path.parent.resolve()}"
        if near or names:
            hint = did_you_mean(source, names or near)
        raise InvalidRecipe([Finding("there is no such file", hint=hint, origin=Origin(source))]) from error
    except OSError as error:
        raise InvalidRecipe([Finding(f"cannot be read: {error.strerror}", origin=Origin(source))]) from error
    except UnicodeDecodeError as error:
        message = f"this is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8"
        raise InvalidRecipe([Finding(message, origin=Origin(source))]) from error
    except ValueError as error:
        raise InvalidRecipe([Finding(f"cannot be read: it {error}", origin=Origin(source))]) from error
    return read(text, source, path.resolve().parent)


def merge_parents(
    layer: Layer, chain: tuple[Path, ...] = (), known: dict[Path, Layer | InvalidRecipe] | None = None
) -> Layer:
    """Merge a recipe onto all recipes that it extends, from left to right.

    Args:
        layer: The recipe.
        chain: The files that extend this one, outermost first; the last one is the recipe itself.
        known: What the parents that were read so far came to.

    Raises:
        InvalidRecipe: A parent is missing or is not TOML, recipes extend each other in a circle, or ``drop`` names a
            key that is not inherited.
    """
    under = Layer({}, {})
    findings: dict[Finding, None] = {}
    known = {} if known is None else known
    for number, parent in enumerate(layer.extends):
        try:
            under = merge(under, _parent(parent, ("extends", number), chain, known))
        except InvalidRecipe as error:
            findings |= {finding.located(layer.origins, ""): None for finding in error.findings}
            if len(known) > MOST_FILES:
                break
    if findings:
        raise InvalidRecipe(findings)
    return merge(under, layer)


def _parent(name: PathString, where: Where, chain: tuple[Path, ...], known: dict[Path, Layer | InvalidRecipe]) -> Layer:
    """Return a recipe that another one extends, merged onto its own parents; each is read once."""
    try:
        path = (name.folder / Path(name).expanduser()).resolve()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # no home folder, a loop of links, a NUL, too long a name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRecipe([Finding(f"no file can have this name: {reason}", where)]) from error
    coming = None if there or Path(name).suffix else shipped().get(name)
    if coming is not None:
        path, there = coming.resolve(), True
    if path in chain:
        circle = " extends ".join(short_path(each) for each in (*chain[chain.index(path) :], path))
        raise InvalidRecipe([Finding(f"recipes extend each other: {circle}", where)])
    if path not in known and len(known) + len(chain) > MOST_FILES:
        raise InvalidRecipe([Finding(f"more than {MOST_FILES} recipes are extended, directly and indirectly", where)])
    if path not in known:
        if not there:
            hint = did_you_mean(path.name, [*(each.name for each in path.parent.glob("*.toml")), *shipped()])
            raise InvalidRecipe([Finding(f"there is no file {short_path(path)}", where, hint=hint)])
        try:
            known[path] = merge_parents(load(path, short_path(path)), (*chain, path), known)
        except InvalidRecipe as error:
            known[path] = error
    found = known[path]
    if isinstance(found, InvalidRecipe):
        raise found
    return found


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
        if not where or not has(tree, where):
            near = did_you_mean(name, [dotted(each) for each in places(tree)])
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


def _without(tree: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = where
    if not rest:
        return {key: value for key, value in tree.items() if key != first}
    return tree | {first: _without(tree[first], tuple(rest))}
