"""Writes a recipe with those that it extends folded in, as one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from trainkit.drafting import RecipeText
from trainkit.recipe.layers import merge_parents
from trainkit.recipe.limits import read_file
from trainkit.recipe.origin import Mark, Origin
from trainkit.recipe.positions import Where
from trainkit.recipe.source import read


def whole(path: Path) -> str:
    """Return the text of a recipe; if it extends others, with their settings in it, and the comment behind each.

    Raises:
        InvalidRecipe: The recipe or one that it extends is not TOML, or is missing.
    """
    text = read_file(path)
    layer = read(text, path.name, path.parent)
    if not layer.extends:
        return text
    merged = merge_parents(layer)
    written = RecipeText()
    _table(written, merged.tree, (), merged.origins)
    head = "".join(f"{line}\n" for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))
    return f"{head}{written}\n"


def _table(written: RecipeText, tree: Mapping[str, Any], where: Where, origins: Mapping[Where, Origin]) -> None:
    inner = {key: value for key, value in tree.items() if _has_a_header(value, (*where, key), origins)}
    if where and (len(inner) < len(tree) or not tree):
        written.table(".".join(map(str, where)), _comment(_mark(where, origins)))
    for key, value in tree.items():
        if key not in inner:
            why, number = _comment(_mark((*where, key), origins)), _number(value, (*where, key), origins)
            if number:
                written.as_written(key, number, why)
            else:
                written.value(key, value, why)
    for key, value in inner.items():
        _table(written, value, (*where, key), origins)


def _mark(where: Where, origins: Mapping[Where, Origin]) -> Mark | None:
    origin = origins.get(where)
    return origin.key if origin else None


def _has_a_header(value: object, where: Where, origins: Mapping[Where, Origin]) -> bool:
    """Return whether a value is a table with a header of its own, not one in braces."""
    mark = _mark(where, origins)
    return isinstance(value, Mapping) and (mark is None or mark.text.lstrip().startswith("["))


def _number(value: object, where: Where, origins: Mapping[Where, Origin]) -> str:
    """Return a number as its line has it ("1e6", not "1000000.0"); "": it is none."""
    origin = origins.get(where)
    if isinstance(value, bool) or not isinstance(value, int | float) or origin is None or origin.value is None:
        return ""
    mark = origin.value
    return mark.text[mark.column - 1 : mark.column - 1 + mark.width]


def _comment(mark: Mark | None) -> str:
    """Return the comment at the end of a line, or ""."""
    quote = ""
    for place, character in enumerate(mark.text if mark else ""):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            assert mark
            return mark.text[place + 1 :].strip()
    return ""
