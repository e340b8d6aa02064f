"""The recipes of a cross-validation: the same recipe for each fold, with other settings of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from trainkit.errors import RecipeError
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import Resolved, changed
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

    def chosen(self, only: Sequence[int]) -> list[Resolved]:
        """Return the recipes of some folds; of none: of all."""
        return [each for fold, each in enumerate(self.recipes) if fold in only or not only]


def fold_recipes(whole: Resolved, number: int) -> Folds:
    """Return the recipe of each fold.

    Args:
        whole: The recipe.
        number: Number of folds.

    Raises:
        RecipeError: The data of the recipe cannot be divided into folds, or a weight is "auto".
    """
    recipe = whole.recipe
    if names := searched(recipe):
        raise RecipeError(
            f'--folds: losses.{names[0]}.weight is "auto", and each fold would choose another; run once without '
            f"--folds, and give the folds the weight that it chose, with --set losses.{names[0]}.weight=…"
        )
    folder = recipe.run.dir / f"{recipe.run.name}_{number}folds"
    recipes = []
    for fold in range(number):
        own = {
            "run": {"dir": escaped(str(folder)), "name": f"fold_{fold}"},
            "data": recipe.data.settings_of_fold(fold, number),
        }
        recipes.append(changed(whole, own))
    return Folds(folder, tuple(recipes))
