"""Reads the docstrings of settings classes: what `show`, the JSON Schema and the reference say of a setting."""

from __future__ import annotations

import inspect
import re
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple


class Docstring(NamedTuple):
    """The docstring of a class.

    Attributes:
        text: All of it but the section "Attributes:".
        settings: Setting -> what that section says of it, with line breaks removed.
    """

    text: str
    settings: MappingProxyType[str, str]


def docstring(cls: Any) -> Docstring:
    """Return the docstring that a class itself has, and no base class."""
    return _docstring(cls)


@cache
def _docstring(cls: Any) -> Docstring:
    own = vars(cls).get("__doc__") or ""
    before, heading, rest = inspect.cleandoc(own).partition("\nAttributes:\n")
    if not heading:
        return Docstring(before.strip(), MappingProxyType({}))
    section = re.match(r"(?:[ \t]+\S.*(?:\n|$)|\n(?=[ \t]))*", rest)
    taken = section[0] if section else ""
    meanings: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n" + taken).splitlines():
        entry = re.match(r"(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry and not line.startswith(" "):
            name = entry[1]
            meanings[name] = entry[2]
        elif name:
            meanings[name] = f"{meanings[name]} {line.strip()}".strip()
    text = f"{before.strip()}\n\n{rest[len(taken) :].strip()}".strip()
    return Docstring(text, MappingProxyType(meanings))


def meanings(cls: Any) -> MappingProxyType[str, str]:
    """Return what a class and its base classes say of each setting: name of the field -> text."""
    return _meanings(cls)


@cache
def _meanings(cls: Any) -> MappingProxyType[str, str]:
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        found |= docstring(each).settings
    return MappingProxyType(found)


def first_sentence(cls: Any) -> str:
    """Return the first sentence of a class's docstring; empty if it has none.

    Example:
        >>> from trainkit.contracts import Monitor
        >>> first_sentence(Monitor)
        'The value that plateau schedules, the best checkpoint and early stopping watch by default.'
    """
    paragraph = " ".join(docstring(cls).text.partition("\n\n")[0].split())
    found = re.match(r".*?[.!?](?=\s|$)", paragraph)
    return (found[0] if found else paragraph).rstrip(":")
