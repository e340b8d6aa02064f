"""Writes settings as tables, and walks over all settings of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from trainkit import registry
from trainkit.contracts import Component
from trainkit.recipe.fields import field_types, is_kind, item_type, settings_fields, union_member
from trainkit.recipe.positions import Where
from trainkit.recipe.references import escaped
from trainkit.recipe.root import GroupSettings
from trainkit.recipe.source import PathString

_HOLD_NO_SETTINGS = frozenset({str, int, float, bool, type(None)})
"""Types of most values of a recipe, which need not be looked into."""


def walk_settings(settings: Any, where: Where = (), declared: Any = None) -> Iterator[tuple[Where, Any, Any]]:
    """Yield every settings object of a recipe, outermost first: its place, the object, and the type of its field."""
    if isinstance(settings, Mapping):
        for key, each in settings.items():
            yield from walk_settings(each, (*where, key), item_type(declared))
    elif isinstance(settings, list | tuple):
        for index, each in enumerate(settings):
            yield from walk_settings(each, (*where, index), item_type(declared))
    elif attrs.has(type(settings)):
        yield where, settings, union_member(declared, settings)
        field_type = field_types(type(settings))
        for key, field in settings_fields(type(settings)).items():
            value = getattr(settings, field.name, None)  # an incomplete object lacks some
            if type(value) not in _HOLD_NO_SETTINGS:
                yield from walk_settings(value, (*where, key), field_type.get(field.name))


def to_tables(value: Any, written: Any = None, declared: Any = None) -> Any:
    """Return settings as complete tables: ``use``, and every field that is not None. Paths become strings.

    Args:
        value: The settings.
        written: The table that they were read from, if any, for the form in which ``use`` and references to
            environment variables were written.
        declared: The type of the field that holds the settings.
    """
    if attrs.has(type(value)):
        return _plain_table(value, written if isinstance(written, Mapping) else {}, union_member(declared, value))
    if isinstance(value, Mapping):
        tables = written if isinstance(written, Mapping) else {}
        return {str(key): to_tables(each, tables.get(key), item_type(declared)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        inner = written if isinstance(written, list) and len(written) == len(value) else [None] * len(value)
        return [to_tables(each, table, item_type(declared)) for each, table in zip(value, inner, strict=True)]
    if isinstance(written, PathString) and written.written is not None:  # its value is not written down
        if not isinstance(value, Path) or Path(written).expanduser().is_absolute():
            return written.written
        is_below = str(value).endswith(f"/{written}")  # the recipe's folder, or runs/ for the name of a run
        folder = str(value).removesuffix(f"/{written}") if is_below else str(written.folder.absolute())
        return f"{escaped(folder)}/{written.written}"
    if isinstance(value, str | Path):
        return escaped(str(value))
    return value


def plain(value: Any) -> Any:
    """Return a value of a recipe with plain strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


def _plain_table(settings: Any, written: Mapping[str, Any], declared: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if isinstance(settings, Component) and (is_kind(declared) or "use" in written):
        table["use"] = str(written["use"]) if "use" in written else registry.name_of(type(settings))
    field_type = field_types(type(settings))
    for alias, field in settings_fields(type(settings)).items():
        value = getattr(settings, field.name)
        if isinstance(settings, GroupSettings) and field.name == "options":
            table |= {key: to_tables(each, written.get(key)) for key, each in value.items()}
        elif isinstance(settings, GroupSettings) and field.name == "then" and not value:
            continue  # no empty table in each group
        elif field.init and value is not None:
            table[alias] = to_tables(value, written.get(alias), field_type.get(field.name))
    return table
