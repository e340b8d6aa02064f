"""Explains settings: what `trainkit show` prints of a settings class, and the pages of docs/reference hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import attrs

from trainkit.recipe.docstrings import meanings
from trainkit.recipe.fields import (
    display_value,
    field_types,
    is_kind,
    is_mapping,
    is_sequence,
    settings_fields,
    type_name,
    without_none,
)
from trainkit.recipe.ranges import choices_of, range_of, range_of_items
from trainkit.recipe.root import RunSettings

_SUPPLIED: dict[type, tuple[str, ...]] = {RunSettings: ("name",)}
"""Settings that a recipe need not give, because something else does."""


class Setting(NamedTuple):
    """What is known of a setting.

    Attributes:
        key: Its key, with the tables around it.
        annotation: Its type as Python writes it.
        type_words: Its type in words.
        required: Whether it must be given.
        has_default: Whether it has a default that can be shown.
        default: The default, if it can be shown.
        is_table: Whether it is a table with settings of its own, which follow.
        range: The numbers that it takes, for example "≥ 1"; empty: any.
        text: What it means.
        components_of: The entry-point group of the components that it takes; None: it takes none.
    """

    key: str
    annotation: str
    type_words: str
    required: bool
    has_default: bool
    default: Any
    is_table: bool
    range: str
    text: str
    components_of: str | None

    @property
    def default_words(self) -> str:
        """The default in the form of a recipe; empty: there is none that can be shown."""
        return in_toml(self.default) if self.has_default and self.default is not None else ""


def settings_of(cls: Any, table: str = "") -> Iterator[Setting]:
    """Yield the settings of a class, in order, each followed by those of the table that it holds.

    Args:
        cls: The settings class.
        table: What stands before each key, for example "prepare.".
    """
    texts = meanings(cls)
    for key, field in settings_fields(cls).items():
        if not field.init:
            continue
        wanted = field_types(cls)[field.name]
        inner = [each for each in (wanted, *get_args(wanted)) if attrs.has(each)]
        kind: Any = next((each for each in inner if is_kind(each)), None)
        own_table = next((each for each in inner if not is_kind(each)), None)
        has_default, default = _default(field)
        yield Setting(
            f"{table}{key}",
            field.type if isinstance(field.type, str) else getattr(wanted, "__name__", str(wanted)),
            type_name(wanted),
            field.default is attrs.NOTHING and key not in _SUPPLIED.get(cls, ()),
            has_default,
            default,
            own_table is not None,
            _range(field, without_none(wanted)),
            texts.get(field.name, ""),
            kind.entry_points if kind is not None else None,
        )
        if own_table is not None:
            name = "NAME." if is_mapping(without_none(wanted)) else ""
            yield from settings_of(own_table, f"{table}{key}.{name}")


def in_toml(value: Any) -> str:
    """Return a value as a recipe writes it.

    Example:
        >>> in_toml((1, "a", True)), in_toml({"use": "plain"})
        ('[1, "a", true]', '{ use = "plain" }')
    """
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(in_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {in_toml(each)}' for key, each in value.items())} }}" if value else "{}"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return display_value(value if isinstance(value, bool | int) else str(value))


def _default(field: attrs.Attribute[Any]) -> tuple[bool, Any]:
    made = getattr(field.default, "factory", None)
    if field.default is attrs.NOTHING or (made is not None and field.default.takes_self):  # type: ignore[union-attr]
        return False, None
    value = field.default if made is None else made()
    return (False, None) if attrs.has(type(value)) or callable(value) else (True, value)


def _range(field: attrs.Attribute[Any], wanted: Any) -> str:
    if choices_of(field) is not None and wanted in (int, float, str):
        return f"one of {', '.join(map(display_value, choices_of(field) or ()))}"
    if wanted in (int, float):
        return range_of(field, wanted is int).in_words
    items = [each for each in get_args(wanted) if each is not Ellipsis]
    if is_sequence(wanted) and items and items[0] in (int, float):
        found = range_of_items(field, items[0] is int).in_words
        return f"each {found}" if found else ""
    return ""
