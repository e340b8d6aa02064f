"""Says what turns one recipe into another, as values of ``--set``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trainkit.recipe.origin import dotted
from trainkit.recipe.positions import Where


def sets_between(before: Mapping[str, Any], after: Mapping[str, Any], leaving: Collection[Where] = ()) -> list[str]:
    """Return the values of ``--set`` that turn a resolved recipe into another one.

    Args:
        before: The tables of the recipe.
        after: The tables that it should have.
        leaving: Places whose difference does not matter.

    Example:
        >>> sets_between({"run": {"epochs": 3}, "hooks": {"a": {"use": "x"}}}, {"run": {"epochs": 5}, "hooks": {}})
        ['run.epochs=5', 'drop=["hooks.a"]']
    """
    removed: list[str] = []
    found = list(_differing(before, after, (), frozenset(leaving), removed))
    return [*found, f"drop={json.dumps(removed)}"] if removed else found


def _differing(
    before: Mapping[str, Any], after: Mapping[str, Any], at: Where, leaving: Collection[Where], removed: list[str]
) -> Iterator[str]:
    for key, value in after.items():
        was, where = before.get(key), (*at, key)
        if key in before and (was == value or where in leaving):
            continue
        if isinstance(value, Mapping) and isinstance(was, Mapping) and was.get("use") == value.get("use"):
            yield from _differing(was, value, where, leaving, removed)
        elif isinstance(value, Mapping):  # another component, whose name drops the keys of the one before
            yield from _all(value, where)
        elif where not in leaving:
            yield f"{dotted(where)}={json.dumps(value)}"
    removed += [dotted((*at, key)) for key in before if key not in after and (*at, key) not in leaving]


def _all(table: Mapping[str, Any], at: Where) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _all(value, (*at, key))
        else:
            yield f"{dotted((*at, key))}={json.dumps(value)}"
