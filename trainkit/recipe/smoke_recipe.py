"""The recipe of a smoke run: the same parts, in as few steps as go through every stage of the parameter groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from trainkit.errors import RecipeError
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import Resolved, changed
from trainkit.recipe.weight_search import searched
from trainkit.words import after_epochs

STEPS = 2
"""Optimizer steps of each stage."""


@attrs.frozen
class SmokeRecipe:
    """A smoke run.

    Attributes:
        resolved: Its recipe.
        num_stages: Number of stages, each of which is an epoch.
        changes: What differs from the whole run, in words.
        not_tried: What happens in the whole run at epochs that the smoke run does not have, in words.
    """

    resolved: Resolved
    num_stages: int
    changes: tuple[str, ...]
    not_tried: tuple[str, ...]


def smoke_recipe(whole: Resolved, folder: Path) -> SmokeRecipe:
    """Return the recipe of a smoke run.

    A stage is what lies between two epochs in which a group starts or stops, or one of its phases starts. Stages follow
    each other as in the whole run, each an epoch of a few steps, and each followed by validation and a checkpoint.

    Args:
        whole: The recipe of the whole run.
        folder: The folder for the run.

    Raises:
        RecipeError: A weight of the recipe is searched.
    """
    recipe = whole.recipe
    if names := searched(recipe):
        raise RecipeError(
            f'--smoke: losses.{names[0]}.weight is "auto", which takes several runs; try the recipe with a number: '
            f"--set losses.{names[0]}.weight=0.01"
        )
    moves = {where: epoch for where, epoch in _epochs_of_groups(whole) if epoch > 0}
    end = recipe.run.epochs
    begins = sorted({0, *(epoch for epoch in moves.values() if end is None or epoch < end)})
    stage_of = {epoch: number for number, epoch in enumerate(begins)}
    tables: dict[str, Any] = {}
    changes = [f"run.epochs: {len(begins)}, one for each stage of the groups, of at most {STEPS} steps"]
    for where, epoch in moves.items():
        moved = stage_of.get(epoch, len(begins))
        _put(tables, where, moved)
        if moved != epoch:
            changes.append(f"{'.'.join(where)}: {epoch} -> {moved}")
    for where, warmup in _warmups(whole.tree):
        _put(tables, where, 0)
        changes.append(f"{'.'.join(where)}: {warmup} -> 0")
    changes.append("validation and checkpoint after every epoch; of each split, the first batches alone")
    always: dict[str, dict[str, Any]] = {
        "run": {
            "epochs": len(begins),
            "most_steps_per_epoch": STEPS,
            "dir": escaped(str(folder)),
            "time_limit": "24h",
        },
        "validation": {"every_epochs": 1, "every_steps": 0},
        "pictures": {"every_epochs": 0, "every_steps": 0},
        "checkpoint": {"every_epochs": 1, "every_steps": 0, "every_minutes": 0.0, "keep_last": 2},
    }
    for table, settings in always.items():
        for key, value in settings.items():
            _put(tables, (table, key), value)
    small = changed(whole, tables)
    return SmokeRecipe(small, len(begins), tuple(changes), tuple(_not_tried(whole, len(begins))))


def _epochs_of_groups(whole: Resolved) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the place of each epoch that the recipe gives for a group, and the epoch."""
    for name, group in whole.recipe.groups.items():
        for key in ("start_epoch", "stop_epoch"):
            epoch = getattr(group, key)
            if epoch is not None:
                yield ("groups", name, key), epoch
        for phase, settings in group.then.items():
            yield ("groups", name, "then", phase, "start_epoch"), settings.start_epoch


def _warmups(table: Mapping[str, Any], where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the place of each warm-up of a schedule: it would be longer than its stage."""
    for key, value in table.items():
        if not isinstance(value, Mapping) or (not where and key not in ("scheduler", "groups")):
            continue
        warmup = value.get("warmup")
        if key == "scheduler" and type(warmup) is int and warmup > 0:
            yield (*where, key, "warmup"), warmup
        yield from _warmups(value, (*where, key))


def _not_tried(whole: Resolved, num_stages: int) -> Iterator[str]:
    """Yield what parts do at later epochs than the smoke run has."""
    recipe = whole.recipe
    epochs = recipe.run.num_epochs()
    for part in (recipe.data, recipe.model, recipe.optimizer, *recipe.losses.values(), *recipe.hooks.values()):
        yield from (f"{after_epochs(epoch)}: {text}" for epoch, text in part.timeline(epochs) if epoch >= num_stages)


def _put(tables: dict[str, Any], where: tuple[str, ...], value: Any) -> None:
    for key in where[:-1]:
        tables = tables.setdefault(key, {})
    tables[where[-1]] = value
