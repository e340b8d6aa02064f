"""What a setting, or a table around it, declares about its change (`HARMLESS`, `KEEPS_VALUES`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from trainkit.contracts import HARMLESS, KEEPS_VALUES
from trainkit.recipe.fields import settings_fields
from trainkit.recipe.positions import Where
from trainkit.recipe.root import Recipe

(_HARMLESS,), (_KEEPS_VALUES,) = HARMLESS, KEEPS_VALUES


def is_harmless(recipe: Recipe, where: Where) -> bool:
    """Return whether a change of a setting changes neither the training nor any value."""
    return _declares(recipe, where, _HARMLESS)


def keeps_values(recipe: Recipe, where: Where) -> bool:
    """Return whether values of evaluated splits mean the same after a change of a setting of the data."""
    return _declares(recipe, where, _KEEPS_VALUES)


def _declares(recipe: Recipe, where: Where, name: str) -> bool:
    for declared, _ in descent(recipe, where):
        holds = declared.get(name, False)
        if holds(recipe) if callable(holds) else holds:
            return True
    return False


def descent(recipe: Recipe, where: Where) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield what is declared of each table around a setting, and of the setting, and its value; as far as it is set."""
    node: Any = recipe
    for key in where:
        if attrs.has(type(node)):
            field = settings_fields(type(node)).get(str(key))
            if field is None:
                return
            node = getattr(node, field.name)
            yield field.metadata, node
        elif isinstance(node, Mapping) and key in node:
            node = node[key]
            yield {}, node
        else:
            return
