"""The recipes of a cross-validation: the same recipe for each fold, with other settings of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from trainkit.errors import RecipeError
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import Resolved, resolve
from trainkit.recipe.source import as_sets
from trainkit.recipe.weight_search import searched


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
    if names := searched(whole):
        raise RecipeError(
            f'--folds: losses.{names[0]}.weight is "auto", and each fold would choose another; run once without '
            f"--folds, and give the folds the weight that it chose, with --set losses.{names[0]}.weight=…"
        )
    folder = whole.run.dir / f"{whole.run.name}_{number}folds"
    recipes = []
    for fold in range(number):
        own = {
            "run": {"dir": escaped(str(folder)), "name": f"fold_{fold}"},
            "data": whole.data.settings_of_fold(fold, number),
        }
        recipes.append(resolve(recipe, [*sets, *as_sets(own)]))
    return Folds(folder, tuple(recipes))
