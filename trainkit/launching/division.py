"""Whether the batch of a recipe can be divided among processes, as far as its settings say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from trainkit.recipe.resolve import Resolved


def refuse_division(resolved: Resolved, numbers: Iterable[int]) -> None:
    """Make sure that a recipe can be trained in so many processes.

    Args:
        resolved: The recipe.
        numbers: The numbers of processes that there may be.

    Raises:
        RecipeError: It cannot.
    """
    shards = resolved.recipe.run.shards
    batch_size = getattr(resolved.recipe.data, "batch_size", None)
    for number in numbers:
        if shards and (number > shards or shards % number):
            possible = ", ".join(str(2**power) for power in range(shards.bit_length()))
            raise RecipeError(
                f"{resolved.source}: run.shards = {shards} cannot be divided among {number} processes; possible are "
                f"{possible}"
            )
        if isinstance(batch_size, int) and batch_size < (shards or number):
            what = f"{shards} shards" if shards else f"{number} processes"
            raise RecipeError(
                f"{resolved.source}: data.batch_size = {batch_size} is of the whole run, and cannot be divided among "
                f"{what}; raise it, or use fewer"
            )
