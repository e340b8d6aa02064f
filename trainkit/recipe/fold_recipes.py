"""The recipes of a cross-validation: the same recipe for each fold, with other settings of its data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import Resolved, resolve


@attrs.frozen
class Folds:
    """A cross-validation.

    Attributes:
        folder: The folder that holds the runs of all folds.
        recipes: The recipe of each fold.
    """

    folder: Path
    recipes: tuple[Resolved, ...]


def fold_recipes(recipe: Path, sets: Sequence[str], number: int) -> Folds:
    """Return the recipe of each fold.

    Args:
        recipe: The recipe.
        sets: The values of ``--set``.
        number: Number of folds.

    Raises:
        RecipeError: The recipe is wrong, or its data cannot be divided into folds.
    """
    whole = resolve(recipe, sets).recipe
    folder = whole.run.dir / f"{whole.run.name}_{number}folds"
    recipes = []
    for fold in range(number):
        own = {
            "run": {"dir": escaped(str(folder)), "name": f"fold_{fold}"},
            "data": whole.data.settings_of_fold(fold, number),
        }
        recipes.append(resolve(recipe, [*sets, *_as_sets(own)]))
    return Folds(folder, tuple(recipes))


def _as_sets(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _as_sets(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={json.dumps(value)}"
