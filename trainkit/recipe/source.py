"""Reads the text of a recipe, and records where every value comes from."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import tomli

from trainkit.recipe.limits import DEEPEST, LONGEST_TEXT, LONGEST_WORD, WHOLE_NUMBERS, excess
from trainkit.recipe.origin import Mark, Origin, dotted
from trainkit.recipe.positions import Span, Where, dotted_key, positions
from trainkit.recipe.problems import Finding, InvalidRecipe

_LONGEST_SHOWN = 200


class PathString(str):
    """A string of a recipe.

    Attributes:
        folder: The folder that it starts from if it is a relative path.
        written: How it is written down if it holds values of environment variables: with references to them. None: it
            holds none.
        resolved: Whether it is from a resolved recipe, in which only environment variables are referred to.
    """

    __slots__ = ("folder", "resolved", "written")
    folder: Path
    written: str | None
    resolved: bool

    def __new__(cls, text: str, folder: Path, written: str | None = None, resolved: bool = False) -> PathString:
        """Return the string."""
        made = super().__new__(cls, text)
        made.folder, made.written, made.resolved = folder, written, resolved
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


def read(text: str, source: str, folder: Path, *, resolved: bool = False) -> Layer:
    """Read a recipe's text.

    Args:
        text: TOML.
        source: The name of the recipe in messages.
        folder: The folder that relative paths start from.
        resolved: Whether it is a resolved recipe, in which ``extends`` and ``drop`` mean nothing, nor do references
            other than to environment variables.

    Raises:
        InvalidRecipe: The text is not TOML, or passes a limit.
    """
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    lines = text.split("\n")
    starts = [0]
    for each in lines:
        starts.append(starts[-1] + len(each) + 1)

    def mark_of(span: Span) -> Mark:
        line = bisect_right(starts, span[0]) - 1
        column = span[0] - starts[line]
        width = min(span[1] - span[0], len(lines[line]) - column)
        return Mark(line + 1, column + 1, max(width, 1), lines[line])

    if passed := excess(text):
        mark = mark_of((passed.begin, passed.end))
        raise InvalidRecipe([Finding(passed.message, origin=Origin(source, mark, mark))])
    try:
        tree = tomli.loads(text)
        spans = positions(text)
    except tomli.TOMLDecodeError as error:
        mark = Mark(error.lineno, error.colno, 1, lines[error.lineno - 1] if error.lineno <= len(lines) else "")
        hint = "in a path, write \\ as /, or the string in single quotes: '…'" if "'\\'" in error.msg else ""
        found = Finding(f"this is not TOML: {error.msg}", hint=hint, origin=Origin(source, mark, mark))
        raise InvalidRecipe([found]) from error

    origins = {where: Origin(source, mark_of(spans.key), mark_of(spans.value)) for where, spans in spans.items()}
    return _layer(tree, origins, folder, resolved)


def read_settings(settings: Sequence[str]) -> tuple[Layer, list[Finding]]:
    """Read the values of ``--set a.b=c``: each as TOML, or else as a bare string. The last one for a key wins.

    Returns:
        A layer, and a finding for each that has no key or no "=", or that sets a key of something that is no table.
    """
    tree: dict[str, Any] = {}
    origins: dict[Where, Origin] = {}
    findings = []
    for setting in settings:
        origin = Origin(f"--set {setting if len(setting) <= _LONGEST_SHOWN else setting[:_LONGEST_SHOWN] + '…'}")
        name, value = _split(setting)
        if not name:
            findings.append(Finding("write it as --set some.key=value", origin=origin))
            continue
        if len(name) > DEEPEST:
            findings.append(Finding(f"a key of {len(name)} parts; at most {DEEPEST} are allowed", origin=origin))
            continue
        if passed := _excess_of_value(value):
            findings.append(Finding(passed, origin=origin))
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
            table[last] = toml_value(value)
            forget(origins, name)
            origins |= dict.fromkeys(_places(table[last], name), attrs.evolve(origin, text=value))
    if "extends" in tree:
        del tree["extends"]
        findings.append(Finding("extends can stand in a recipe file only", origin=origins["extends",]))
    return _layer(tree, origins, Path.cwd()), findings


def as_sets(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the values of ``--set`` that say what nested tables say.

    Example:
        >>> list(as_sets({"run": {"epochs": 3}, "drop": ["hooks.images"]}))
        ['run.epochs=3', 'drop=["hooks.images"]']
    """
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from as_sets(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={json.dumps(value)}"


def layer_of_tables(tables: Mapping[str, Any], source: str) -> Layer:
    """Return settings as a layer.

    Args:
        tables: The settings, as nested tables; relative paths in them start from the working directory.
        source: Where they come from, for messages.
    """
    tree = _with_folder(dict(tables), Path.cwd(), False)
    return Layer(tree, dict.fromkeys((where for key in tree for where in _places(tree[key], (key,))), Origin(source)))


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


def _layer(tree: dict[str, Any], origins: dict[Where, Origin], folder: Path, resolved: bool = False) -> Layer:
    tree = _with_folder(tree, folder, resolved)
    names: dict[str, tuple[PathString, ...]] = {}
    findings = [Finding(message, where, at=at, origin=origins.get(where)) for message, where, at in _too_large(tree)]
    for key in () if resolved else ("extends", "drop"):
        value = tree.pop(key, [])
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            names[key] = tuple(value)
        else:
            hint = f'{key} = ["{value}"]' if isinstance(value, str) else ""
            findings.append(Finding("must be a list of strings", (key,), hint=hint, origin=origins[key,]))
    if findings:
        raise InvalidRecipe(findings)
    return Layer(tree, origins, names.get("extends", ()), names.get("drop", ()))


def _with_folder(value: Any, folder: Path, resolved: bool) -> Any:
    if isinstance(value, dict):
        return {key: _with_folder(each, folder, resolved) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_folder(each, folder, resolved) for each in value]
    return PathString(value, folder, resolved=resolved) if isinstance(value, str) else value


def _too_large(value: Any, where: Where = ()) -> Iterator[tuple[str, Where, Literal["key", "value"]]]:
    """Yield a message for each key that is too long, and for each whole number that TOML does not have."""
    if isinstance(value, dict):
        for key, each in value.items():
            if len(key) > LONGEST_WORD:
                yield f"a key of {len(key)} characters; it may have {LONGEST_WORD}", (*where, key), "key"
            yield from _too_large(each, (*where, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _too_large(each, (*where, index))
    elif type(value) is int and value not in WHOLE_NUMBERS:
        yield "a whole number must lie between -2^63 and 2^63 - 1", where, "value"


def _excess_of_value(text: str) -> str | None:
    """Return which limit a value of ``--set`` passes; None if it passes none, or is a bare string."""
    passed = excess(text)
    if passed is None or not (len(text) > LONGEST_TEXT or re.match(r"[\[{]|[+-]?[0-9][0-9a-fA-FoxXT_.:+-]*$", text)):
        return None
    return passed.message


def _split(setting: str) -> tuple[tuple[str, ...], str]:
    setting = setting.strip()
    key = dotted_key(setting)
    if key is None:
        return (), ""
    name, end = key
    rest = setting[end:].lstrip()
    return (name, rest[1:].strip()) if rest.startswith("=") else ((), "")


def toml_value(text: str) -> Any:
    """Return a text read as a value of TOML, or the text itself if it is none."""
    if excess(text):
        return text
    try:
        read = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text
