"""What a recipe with a weight "auto" asks for: which weights, when the branches begin, and what cannot work.

epoch            0                         branch start         end of the run
weight 0         ──────────────────────────┬──────────────────────┤
weight a                                   ├──────────────────────┤
weight b                                   └──────────────────────┤
then the best of them                      ═══════════════════════╡
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from trainkit.contracts import AUTO, Monitor
from trainkit.recipe.problems import Finding
from trainkit.recipe.root import Recipe, WeightSearch
from trainkit.words import after_epochs

_SHARE = 4  # a branch is this part of the run, unless the recipe says how long it is


class Cost(NamedTuple):
    """What a search costs, together with its run.

    Attributes:
        branches: Number of branches.
        branch_epochs: Epochs of a branch.
        epochs: Epochs of training in all.
        runs: The same as a multiple of one run.
    """

    branches: int
    branch_epochs: int
    epochs: int
    runs: float


def searched(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the losses whose weight is "auto"."""
    return tuple(name for name, loss in recipe.losses.items() if loss.weight == AUTO)


def search_settings(recipe: Recipe) -> WeightSearch:
    """Return how weights are searched."""
    return recipe.weight_search or WeightSearch()


def watched(recipe: Recipe) -> Monitor:
    """Return the value of held-out data that decides."""
    return search_settings(recipe).watched(recipe.monitor)


def branch_epochs(recipe: Recipe, num_epochs: int) -> int:
    """Return the number of epochs of a branch: as set, or a quarter of the run.

    Args:
        recipe: The recipe.
        num_epochs: The number of epochs of the run.
    """
    return search_settings(recipe).epochs or ceil(num_epochs / _SHARE)


def between(recipe: Recipe, name: str) -> tuple[float, float]:
    """Return the smallest and the largest weight of a loss that are tried at first."""
    return search_settings(recipe).between or recipe.losses[name].usual_weights(recipe)


def cost(recipe: Recipe, num_epochs: int) -> Cost:
    """Return what the search costs at most."""
    number, length = len(searched(recipe)), branch_epochs(recipe, num_epochs)
    branches = number * search_settings(recipe).branches - (number - 1)  # the best of one is the 0 of the next
    epochs = num_epochs + branches * length
    return Cost(branches, length, epochs, epochs / num_epochs)


def cost_in_words(recipe: Recipe, num_epochs: int) -> Iterator[str]:
    """Yield the lines of a plan about weights that are searched.

    Args:
        recipe: The recipe.
        num_epochs: The number of epochs of the run.
    """
    if not (names := searched(recipe)):
        return
    most, decides = cost(recipe, num_epochs), watched(recipe)
    for name in names:
        low, high = between(recipe, name)
        yield f"losses.{name}.weight is chosen by {decides.metric} ({decides.mode}) among 0 and {low:g} to {high:g}"
    when = after_epochs(num_epochs - most.branch_epochs)
    yield (
        f"{most.branches} branches begin {when}, and then the best once more: at most {most.epochs} epochs of "
        f"training in all, {most.runs:.2g} times those of one run"
    )


def search_rules(recipe: Recipe) -> Iterator[Finding]:
    """Find what keeps a weight from being searched."""
    names = searched(recipe)
    if not names:
        if recipe.weight_search is not None:
            yield Finding('has no effect: no loss has weight = "auto"', ("weight_search",), "note", at="key")
        return
    for name in names:
        if recipe.losses[name].on_validation:
            yield Finding(
                f"{type(recipe.losses[name]).__name__} is no regulariser: it is part of the loss of held-out data, "
                "which cannot say how much it should weigh; write a number",
                ("losses", name, "weight"),
            )
    if recipe.run.steps is None:
        epochs = recipe.run.num_epochs()
        if (length := branch_epochs(recipe, epochs)) >= epochs:
            yield Finding(
                f"branches of {length} epoch{'s' * (length != 1)} must begin after the first epoch, and the run has "
                f"{epochs} epoch{'s' * (epochs != 1)}",
                ("run", "epochs") if search_settings(recipe).epochs is None else ("weight_search", "epochs"),
            )
    yield from _deciding_value(recipe, names[0])


def _deciding_value(recipe: Recipe, name: str) -> Iterator[Finding]:
    """Find a deciding value that is not one of held-out data."""
    metric = watched(recipe).metric
    own = recipe.weight_search is not None and recipe.weight_search.metric is not None
    place = ("weight_search", "metric") if own else ("losses", name, "weight")
    held_out = list(recipe.evaluated_splits())
    if not held_out:
        yield Finding(
            f'"auto" needs held-out data, by which weights are compared, and {type(recipe.data).__name__} holds none '
            "out",
            ("losses", name, "weight"),
            hint=_how_to_hold_out(recipe),
        )
    elif metric.partition("/")[0] not in held_out:
        yield Finding(
            f'"{metric}" is not a value of held-out data, so it cannot choose a weight; set [weight_search] metric = '
            f'"{held_out[0]}/loss"',
            place,
        )
    elif metric.partition("/")[2] in recipe.losses and not recipe.losses[metric.partition("/")[2]].on_validation:
        yield Finding(f'"{metric}" is not computed, since a regulariser says nothing about held-out data', place)


def _how_to_hold_out(recipe: Recipe) -> str:
    known = hasattr(recipe.data, "validation_fraction")
    return "[data] validation_fraction = 0.1" if known else "see trainkit show for the settings of the data"
