"""Replaces the references in a recipe's strings by what they refer to.

    "${run.name}"     the value of another setting
    "${env.KEY}"      the value of an environment variable
    "$${"             the characters "${"

What comes from an environment variable is used, and never written down: see `PathString.written`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.errors import RecipeError, did_you_mean
from trainkit.recipe.limits import DEEPEST, LONGEST_TEXT, MOST_MISTAKES, MOST_VALUES
from trainkit.recipe.origin import dotted
from trainkit.recipe.positions import Where, dotted_key
from trainkit.recipe.problems import Finding
from trainkit.recipe.source import Layer, PathString

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_IN_RESOLVED = re.compile(r"\$\$\{|\$\{(env\.[A-Za-z_][A-Za-z0-9_]*)\}")
_VARIABLE = re.compile(r"env\.([A-Za-z_][A-Za-z0-9_]*)")


def escaped(text: str) -> str:
    """Return a text as it is written in a recipe, where it is no reference.

    Example:
        >>> escaped("${x}")
        '$${x}'
    """
    return text.replace("${", "$${")


def readers(tree: Any, where: Where = ()) -> Iterator[tuple[Where, str]]:
    """Yield each setting of a resolved recipe that reads an environment variable, and the variable's name."""
    if isinstance(tree, Mapping):
        for key, each in tree.items():
            yield from readers(each, (*where, key))
    elif isinstance(tree, list):
        for index, each in enumerate(tree):
            yield from readers(each, (*where, index))
    elif isinstance(tree, str):
        yield from ((where, each[1].removeprefix("env.")) for each in _IN_RESOLVED.finditer(tree) if each[1])


def variables(tree: Any) -> dict[str, Where]:
    """Return the environment variables that a resolved recipe reads: name -> the first setting that reads it."""
    found: dict[str, Where] = {}
    for where, name in readers(tree):
        found.setdefault(name, where)
    return found


def interpolate(layer: Layer) -> tuple[Layer, list[Finding]]:
    """Replace each reference by what it refers to.

    A string that consists of one reference becomes the value, with its type. Within a longer string, a reference is
    replaced by the value as text.

    Returns:
        The layer, and a finding for each reference that is unknown or refers to itself.
    """
    expansion = _Expansion(layer.tree)
    try:
        tree = expansion.expand(layer.tree, (), ())
    except _TooMuchError as error:
        return layer, [*expansion.findings, Finding(str(error), error.where)]
    return attrs.evolve(layer, tree=tree), expansion.findings


class _Expansion:
    """Expands the references of a recipe, within the limits.

    Args:
        tree: The recipe.
    """

    def __init__(self, tree: dict[str, Any]) -> None:
        self.findings: list[Finding] = []
        self._tree = tree
        self._values = self._characters = 0

    def expand(self, value: Any, where: Where, chain: tuple[Where, ...], depth: int = 0) -> Any:
        """Return a value with all of its references replaced.

        Args:
            value: The value.
            where: Its place.
            chain: The places whose references led here.
            depth: Number of tables and lists around it in the result.

        Raises:
            _TooMuchError: A limit is passed.
        """
        self._count(where, chain, depth, len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict):
            return {key: self.expand(each, (*where, key), chain, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.expand(each, (*where, index), chain, depth + 1) for index, each in enumerate(value)]
        if not isinstance(value, PathString) or "${" not in value:
            return value
        try:
            return self._expanded(value, where, chain, depth)
        except _BadReferenceError as error:
            self.findings.append(Finding(str(error), error.where or where, hint=error.hint))
            if len(self.findings) >= MOST_MISTAKES:
                raise _TooMuchError("there are more mistakes; these come first", where) from error
            return value

    def _expanded(self, value: PathString, where: Where, chain: tuple[Where, ...], depth: int) -> Any:
        pattern = _IN_RESOLVED if value.resolved else _REFERENCE
        whole = pattern.fullmatch(value)
        if whole and whole[1] is not None:
            found: Any = self._look_up(whole[1], where, chain, depth)
            if not isinstance(found, str):
                return found
            is_setting = not whole[1].startswith("env.")
            folder = found.folder if is_setting and isinstance(found, PathString) else value.folder
            return PathString(found, folder, _written(found))
        text, written = "", ""
        end = 0
        for each in pattern.finditer(value):
            between = value[end : each.start()]
            found = "${" if each[1] is None else _as_text(self._look_up(each[1], where, chain, depth))
            text += between + found
            written += escaped(between) + (_written(found) or escaped(found))
            end = each.end()
            self._count(where, chain, depth, len(text))
        text, written = text + value[end:], written + escaped(value[end:])
        return PathString(text, value.folder, written if variables(written) else None)

    def _look_up(self, name: str, where: Where, chain: tuple[Where, ...], depth: int) -> Any:
        """Return what a reference refers to."""
        if name == "env" or name.startswith("env."):
            return _variable(name)
        key = dotted_key(name)
        target = key[0] if key and key[1] == len(name) else ()
        if not target or not has(self._tree, target):
            hint = did_you_mean(name, [dotted(each) for each in places(self._tree)])
            raise _BadReferenceError(f'"${{{name}}}" is not set in this recipe', hint)
        steps = (*chain, where)
        for number, step in enumerate(steps):
            if step[: len(target)] == target:
                circle = " -> ".join(dotted(each) for each in (*steps[number:], target))
                raise _BadReferenceError(f"refers to itself: {circle}", where=step)
        return self.expand(_at(self._tree, target), target, steps, depth)

    def _count(self, where: Where, chain: tuple[Where, ...], depth: int, characters: int) -> None:
        self._values += bool(chain)
        self._characters += characters if chain else 0
        for what, number, most in (
            ("refer to each other more than {} times in a row", len(chain), DEEPEST),
            ("make more than {} tables and lists within each other", depth, 2 * DEEPEST),
            ("expand to more than {} values", self._values, MOST_VALUES),
            ("expand to more than {} characters", self._characters, LONGEST_TEXT),
        ):
            if number > most:
                raise _TooMuchError(f"the references ${{…}} of this recipe {what.format(most)}", (*chain, where)[0])


class _BadReferenceError(RecipeError):
    def __init__(self, message: str, hint: str = "", where: Where = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.where = where


class _TooMuchError(RecipeError):
    def __init__(self, message: str, where: Where) -> None:
        super().__init__(message)
        self.where = where


def _variable(name: str) -> PathString:
    """Return the value of an environment variable."""
    named = _VARIABLE.fullmatch(name)
    if named is None:
        raise _BadReferenceError(f'"${{{name}}}" names no environment variable', 'write it as "${env.NAME}"')
    value = os.environ.get(named[1])
    if value is None:
        hint = f"set it before trainkit starts: export {named[1]}=…"
        raise _BadReferenceError(f"the environment variable {named[1]} is not set", hint)
    return PathString(value, Path.cwd(), f"${{{name}}}")


def _written(value: str) -> str | None:
    return value.written if isinstance(value, PathString) else None


def _as_text(value: Any) -> str:
    if isinstance(value, dict | list):
        raise _BadReferenceError("a reference to a table or a list must be the whole string")
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def has(tree: Any, where: Sequence[str | int]) -> bool:
    """Return whether a place is in a recipe's tables."""
    for part in where:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def places(tree: dict[str, Any], where: Where = ()) -> list[Where]:
    """Return the places of all settings and tables in a recipe's tables."""
    found: list[Where] = []
    for key, value in tree.items():
        found.append((*where, key))
        if isinstance(value, dict):
            found += places(value, (*where, key))
    return found


def _at(tree: Any, where: Where) -> Any:
    for part in where:
        tree = tree[part]
    return tree
