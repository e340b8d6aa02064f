"""Settings of a run as a flat table, read quickly for many runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import tomli

from trainkit.engine.changes import flat
from trainkit.recipe.origin import dotted

_PLACES = ("run.name", "run.dir")
"""What every run has of its own."""


def settings_of(recipe: str) -> dict[str, Any]:
    """Return the settings of a resolved recipe: dotted key -> value.

    A resolved recipe has one table after the other, and runs have most tables in common. So each table is read once.

    Raises:
        ValueError: The text is no TOML.
    """
    if "[[" in recipe or '"""' in recipe or "'''" in recipe:  # then a line may look like the head of a table
        return dict(_read(recipe))
    first, *tables = recipe.split("\n\n[")
    found = dict(_read(first))
    for table in tables:
        found |= _read(f"[{table}")
    return found


@lru_cache(maxsize=4096)
def _read(text: str) -> Mapping[str, Any]:
    return {dotted(where): value for where, value in flat(tomli.loads(text))}


class _NotSet:
    def __repr__(self) -> str:
        return "not set"


NOT_SET: Any = _NotSet()
"""Stands for the value of a setting that a run does not have."""


def differing(runs: Sequence[Mapping[str, Any]], leave_out: Iterable[str] = _PLACES) -> list[str]:
    """Return the settings that are not equal in all runs, in the order of the recipe.

    Args:
        runs: The settings of each run.
        leave_out: Settings that are not compared.
    """
    skipped = set(leave_out)
    keys = dict.fromkeys(key for each in runs for key in each)
    return [key for key in keys if key not in skipped and len({repr(each.get(key, NOT_SET)) for each in runs}) > 1]


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a setting are the same; 1 and true are not, and NaN is NaN."""
    return repr(one) == repr(other)
