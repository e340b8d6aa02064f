"""Says what is known of a run before it trains, for loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.engine.changes import flat
from trainkit.recipe.declarations import is_harmless
from trainkit.recipe.origin import DEFAULT, dotted
from trainkit.recipe.rules import known_names
from trainkit.state import About

if TYPE_CHECKING:
    from trainkit.engine.identity import Identity
    from trainkit.recipe.resolve import Resolved

_VERSION = ("trainkit",)  # of the recipe language


def about(resolved: Resolved, identity: Identity) -> About:
    """Return what is known of a run, without what a resume knows.

    Args:
        resolved: The recipe.
        identity: What the run is.
    """
    recipe = resolved.recipe
    training = [(where, value) for where, value in flat(resolved.tree) if where != _VERSION]
    training = [(where, value) for where, value in training if not is_harmless(recipe, where)]
    training.sort(key=lambda each: resolved.origin(each[0]) is DEFAULT)
    return About(
        id=identity.id,
        parent=None if identity.parent is None else identity.parent.run,
        settings={dotted(where): value for where, value in training},
        losses=tuple(recipe.losses),
        splits=tuple(recipe.evaluated_splits()),
        values=tuple(known_names(recipe)[0]),
    )
