"""Refuses recipes that cannot be divided among processes, before any of them is started or queued."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.sharing import rules_of_devices, sharing_rules

if TYPE_CHECKING:
    from trainkit.recipe.resolve import Resolved


def refuse_division(resolved: Resolved, numbers: Iterable[int]) -> None:
    """Make sure that a recipe can be trained in so many processes.

    Args:
        resolved: The recipe.
        numbers: The numbers of processes that there may be.

    Raises:
        InvalidRecipe: It cannot.
    """
    recipe = resolved.recipe
    found = [
        each for number in numbers for each in (*sharing_rules(recipe, number), *rules_of_devices(recipe, number, 0))
    ]
    if mistakes := [each for each in found if each.severity == "error"]:
        raise InvalidRecipe(each.located(resolved.origins, resolved.source) for each in mistakes)
