"""Answers questions about the types of a settings class's fields."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from trainkit.contracts import Component, FileOrRun, MetricName
from trainkit.errors import ComponentError

_LONGEST_SHOWN = 100
"""Characters of the longest value that messages show as a whole."""


def is_kind(cls: Any) -> bool:
    """Return whether a type is a kind, so that a field of this type holds a table with ``use``."""
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        return False
    return "entry_points" in vars(cls) or (inspect.isabstract(cls) and hasattr(cls, "entry_points"))


def settings_fields(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    """Return the fields of a settings class: key in a recipe -> field."""
    return {str(field.alias): field for field in attrs.fields(cls)}


def field_types(cls: Any) -> dict[str, Any]:
    """Return the types of a settings class's fields: field name -> type.

    Raises:
        ComponentError: A type cannot be found at run time.
    """
    try:
        return _type_hints(cls)
    except NameError as error:
        raise ComponentError(
            f"the settings of {cls.__module__}:{cls.__qualname__} cannot be read: {error} at run time "
            f"(imported under TYPE_CHECKING alone?)"
        ) from error


_type_hints = cache(typing.get_type_hints)


def type_name(wanted: Any) -> str:
    """Return in words which values a field of this type can have."""
    origin = get_origin(wanted)
    if is_union(wanted):
        return " or ".join(dict.fromkeys(type_name(each) for each in get_args(wanted) if each is not type(None)))
    if origin is Literal:
        values = [display_value(each) for each in get_args(wanted)]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
    if wanted in names:
        return names[wanted]
    if wanted is FileOrRun:
        return "a path, or the name of a run"
    if wanted is MetricName:
        return 'the name of a value such as "val/loss"'
    if is_kind(wanted):
        return 'a table with "use"'
    if is_sequence(wanted):
        inner = [type_name(each) for each in get_args(wanted) if each not in (Ellipsis, Any)]
        if origin is tuple and Ellipsis not in get_args(wanted):
            return f"a list of {len(inner)} items ({', '.join(inner)})"
        return f"a list, each item {inner[0]}" if inner else "a list"
    if is_mapping(wanted) or attrs.has(wanted):
        return "a table"
    return str(getattr(wanted, "__name__", wanted))


def display_value(value: Any) -> str:
    """Return a value in the form that messages show."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= _LONGEST_SHOWN else f'"{value[:_LONGEST_SHOWN]}…"'
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def without_none(wanted: Any) -> Any:
    """Return the member of a union of None and one other type; return any other type unchanged."""
    if is_union(wanted):
        members = [each for each in get_args(wanted) if each is not type(None)]
        return members[0] if len(members) == 1 else wanted
    return wanted


def union_member(wanted: Any, value: Any) -> Any:
    """Return the member of a union that a settings object belongs to."""
    members = get_args(wanted) if is_union(wanted) else (wanted,)
    return next((each for each in members if isinstance(each, type) and isinstance(value, each)), wanted)


def item_type(wanted: Any) -> Any:
    """Return the type of the items of a list, or of the values of a mapping."""
    arguments = get_args(without_none(wanted))
    items = arguments[-1] if arguments else Any
    return arguments[0] if items is Ellipsis else items


def is_any(wanted: object) -> bool:
    """Return whether a field of this type can hold anything."""
    return wanted is Any


def is_literal(wanted: object) -> bool:
    """Return whether a type is a Literal."""
    return get_origin(wanted) is Literal


def is_union(wanted: Any) -> bool:
    """Return whether a type is a union, for example of a type and None."""
    return get_origin(wanted) in (Union, types.UnionType)


def is_sequence(wanted: Any) -> bool:
    """Return whether a type is a list, a tuple or a sequence."""
    return (get_origin(wanted) or wanted) in (tuple, list, Sequence)


def is_mapping(wanted: Any) -> bool:
    """Return whether a type is a table with any keys."""
    return (get_origin(wanted) or wanted) in (dict, Mapping)
