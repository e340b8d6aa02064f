"""Reads the text of a recipe, and records where every value comes from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from trainkit.recipe.origin import Mark, Origin, dotted
from trainkit.recipe.positions import Span, Where, dotted_key, positions
from trainkit.recipe.problems import Finding, InvalidRecipe


class PathString(str):
    """A string of a recipe, with the folder that it starts from if it is a relative path."""

    __slots__ = ("folder",)
    folder: Path

    def __new__(cls, text: str, folder: Path) -> PathString:
        """Return the string."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


@attrs.frozen
class Layer:
    """One source of settings.

    Attributes:
        tree: The settings, as nested dicts; each string in it is a `PathString`.
        origins: Where each key, table and list item of the tree is from.
        extends: The recipes that this one extends.
        drop: The inherited keys that this one removes.
    """

    tree: dict[str, Any]
    origins: dict[Where, Origin]
    extends: tuple[PathString, ...] = ()
    drop: tuple[PathString, ...] = ()


def read(text: str, source: str, folder: Path) -> Layer:
    """Read a recipe's text.

    Args:
        text: TOML.
        source: The name of the recipe in messages.
        folder: The folder that relative paths start from.

    Raises:
        InvalidRecipe: The text is not TOML.
    """
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    try:
        tree = tomli.loads(text)
        spans = positions(text)
    except tomli.TOMLDecodeError as error:
        line = text.split("\n")[error.lineno - 1] if error.lineno <= text.count("\n") + 1 else ""
        mark = Mark(error.lineno, error.colno, 1, line)
        raise InvalidRecipe([Finding(f"this is not TOML: {error.msg}", origin=Origin(source, mark, mark))]) from error
    except RecursionError as error:
        raise InvalidRecipe([Finding("nested too deeply", origin=Origin(source))]) from error
    lines = text.split("\n")
    starts = [0]
    for each in lines:
        starts.append(starts[-1] + len(each) + 1)

    def mark_of(span: Span) -> Mark:
        line = bisect_right(starts, span[0]) - 1
        column = span[0] - starts[line]
        width = min(span[1] - span[0], len(lines[line]) - column)
        return Mark(line + 1, column + 1, max(width, 1), lines[line])

    origins = {where: Origin(source, mark_of(spans.key), mark_of(spans.value)) for where, spans in spans.items()}
    return _layer(tree, origins, folder)


def read_settings(settings: Sequence[str]) -> tuple[Layer, list[Finding]]:
    """Read the values of ``--set a.b=c``: each as TOML, or else as a bare string. The last one for a key wins.

    Returns:
        A layer, and a finding for each that has no key or no "=", or that sets a key of something that is no table.
    """
    tree: dict[str, Any] = {}
    origins: dict[Where, Origin] = {}
    findings = []
    for setting in settings:
        origin = Origin(f"--set {setting}")
        name, value = _split(setting)
        if not name:
            findings.append(Finding("write it as --set some.key=value", origin=origin))
            continue
        *outer, last = name
        table = tree
        for depth, part in enumerate(outer, 1):
            table = table.setdefault(part, {})
            origins.setdefault(tuple(outer[:depth]), origin)
            if not isinstance(table, dict):
                findings.append(
                    Finding(f"{dotted(tuple(outer[:depth]))} is also set to a value, which is no table", origin=origin)
                )
                break
        else:
            table[last] = _toml_value(value)
            forget(origins, name)
            origins |= dict.fromkeys(_places(table[last], name), origin)
    if "extends" in tree:
        del tree["extends"]
        findings.append(Finding("extends can stand in a recipe file only", origin=origins["extends",]))
    return _layer(tree, origins, Path.cwd()), findings


def _places(value: Any, where: Where) -> Iterator[Where]:
    """Yield the place of a value, and those of all keys in it if it is a table."""
    yield where
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*where, key))


def forget(origins: dict[Where, Origin], where: Where) -> None:
    """Remove the origins of a place and of everything within it."""
    for each in [each for each in origins if each[: len(where)] == where]:
        del origins[each]


def _layer(tree: dict[str, Any], origins: dict[Where, Origin], folder: Path) -> Layer:
    tree = _with_folder(tree, folder)
    names: dict[str, tuple[PathString, ...]] = {}
    findings = []
    for key in ("extends", "drop"):
        value = tree.pop(key, [])
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            names[key] = tuple(value)
        else:
            hint = f'{key} = ["{value}"]' if isinstance(value, str) else ""
            findings.append(Finding("must be a list of strings", (key,), hint=hint, origin=origins[key,]))
    if findings:
        raise InvalidRecipe(findings)
    return Layer(tree, origins, names["extends"], names["drop"])


def _with_folder(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_folder(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_folder(each, folder) for each in value]
    return PathString(value, folder) if isinstance(value, str) else value


def _split(setting: str) -> tuple[tuple[str, ...], str]:
    setting = setting.strip()
    key = dotted_key(setting)
    if key is None:
        return (), ""
    name, end = key
    rest = setting[end:].lstrip()
    return (name, rest[1:].strip()) if rest.startswith("=") else ((), "")


def _toml_value(text: str) -> Any:
    try:
        read = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text
