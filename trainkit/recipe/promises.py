"""What the parts of a step promise of it, so that the engine may do more with it than make it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from trainkit.contracts import Component, Scheduler
from trainkit.recipe.positions import Where
from trainkit.recipe.root import Recipe
from trainkit.recipe.tables import walk_settings

Promise = Literal["steps_can_be_tried", "steps_can_be_recorded"]
"""The attributes of `Component` with which a part promises something."""

_OF_STEPS = ("model", "losses", "optimizer", "groups")  # tables of a recipe


def without_promise(recipe: Recipe, promise: Promise) -> Iterator[tuple[Where, Component]]:
    """Yield model, losses and optimizers, and what they are made of, if they do not promise it: the place, the part."""
    for where, part, _ in walk_settings(recipe):
        of_steps = isinstance(part, Component) and not isinstance(part, Scheduler) and where and where[0] in _OF_STEPS
        if of_steps and not gives(part, promise):
            yield where, part


def gives(part: Component, promise: Promise) -> bool:
    """Return whether a part promises something by its own class or one of its package: another package's may do more.

    Example:
        >>> from trainkit.optimizers.adam import Adam
        >>> gives(Adam(), "steps_can_be_tried")
        True
    """
    says = next(each for each in type(part).__mro__ if promise in vars(each))
    return bool(getattr(part, promise)) and _package(says) == _package(type(part))


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
