"""The learning rates that a recipe plans, as rows: what ``trainkit plan`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainkit.errors import RecipeError
from trainkit.groups.plan import RunLength, plan_groups
from trainkit.interactive.rows import Rows
from trainkit.recipe.group_epochs import declared_groups

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe


def planned_rates(recipe: Recipe, steps_per_epoch: int) -> Rows:
    """Return a row for each epoch: how many are finished when it begins, and the learning rate of each group in it.

    A group that does not train in an epoch has None there. A schedule that depends on metrics is shown as if it never
    reduced the learning rate.

    Args:
        recipe: The settings.
        steps_per_epoch: Optimizer steps of an epoch, on which schedules by steps depend.

    Raises:
        RecipeError: The groups are known only after the model is built, or no group trains in one of the epochs.
    """
    names = declared_groups(recipe)
    if names is None:
        raise RecipeError("the groups of this model are known only after it is built, so there is no plan before")
    length = RunLength.of(recipe.run, steps_per_epoch)
    plans = plan_groups(recipe, names, length)

    def rows() -> Iterator[dict[str, Any]]:
        for epoch in range(length.epochs):
            now = {name: plan.phase_at(epoch) for name, plan in plans.items() if epoch in plan.epochs}
            yield {
                "finished_epochs": epoch,
                **{
                    name: now[name].rate(epoch, epoch * steps_per_epoch, steps_per_epoch, {}).lr
                    if name in now
                    else None
                    for name in plans
                },
            }

    return Rows(rows())
