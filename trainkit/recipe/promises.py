"""What the parts of a step promise of it, so that the engine may do more with it than make it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from trainkit.contracts import Component, Scheduler
from trainkit.recipe.positions import Where
from trainkit.recipe.root import Recipe
from trainkit.recipe.tables import walk_settings

Promise = Literal["steps_can_be_tried", "steps_can_be_recorded", "takes_late_values"]
"""The attributes of `Component` with which a part promises something."""

_LISTENING = ("data", "inference", "metrics", "hooks", "loggers")  # tables of parts that may listen to a step's events
_OF_STEPS = ("model", "losses", "optimizer", "groups")  # tables of a recipe


def without_promise(recipe: Recipe, promise: Promise) -> Iterator[tuple[Where, Component]]:
    """Yield model, losses and optimizers, and what they are made of, if they do not promise it: the place, the part."""
    for where, part, _ in walk_settings(recipe):
        of_steps = isinstance(part, Component) and not isinstance(part, Scheduler) and where and where[0] in _OF_STEPS
        if of_steps and not gives(part, promise):
            yield where, part


def reasons_against_recordings(recipe: Recipe) -> Iterator[tuple[str, Component | None]]:
    """Yield what keeps steps of one process from being recorded: in words, and the part that does, if it is one."""
    run = recipe.run
    others = {
        'precision = "fp16"': run.precision == "fp16",
        "accumulate": run.accumulate > 1,
        "shards": run.shards > 0,
        "compile": run.compile,
        "activation_checkpointing": run.activation_checkpointing,
    }
    if given := [name for name, is_given in others.items() if is_given]:
        yield ", ".join(given), None
    changing = ((("hooks", name), hook) for name, hook in recipe.hooks.items() if hook.phase == "mutate")
    hooks = [(where, hook) for where, hook in changing if not gives(hook, "steps_can_be_recorded")]
    for where, part in (*without_promise(recipe, "steps_can_be_recorded"), *hooks):
        yield f"{type(part).__name__} ({'.'.join(map(str, where))})", part


def may_keep_what_is_repeated(recipe: Recipe) -> frozenset[str]:
    """Return the names of parts that may keep outputs or gradients of a step, if they listen to its events.

    A step that is repeated writes them where those of the step before were.
    """
    return frozenset(
        ".".join(map(str, where))
        for where, part, _ in walk_settings(recipe)
        if isinstance(part, Component) and where and where[0] in _LISTENING and not gives(part, "steps_can_be_recorded")
    )


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
