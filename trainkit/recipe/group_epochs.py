"""The epochs in which each parameter group trains, as far as settings alone say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trainkit.contracts import Scheduler
from trainkit.recipe.root import Recipe
from trainkit.words import number_of


class ActiveEpochs(NamedTuple):
    """The epochs in which a group trains.

    Attributes:
        start: The first one. None: the group never trains.
        stop: The first one in which it no longer trains.
    """

    start: int | None
    stop: int

    def __contains__(self, epoch: object) -> bool:
        """Return whether the group trains in an epoch."""
        return isinstance(epoch, int) and self.start is not None and self.start <= epoch < self.stop


def declared_groups(recipe: Recipe) -> Mapping[str, bool] | None:
    """Return for each group whether it trains without a ``start_epoch``.

    Groups that the recipe defines by patterns do. None: the groups are known only after the model is built.
    """
    if any(group.parameters is not None for group in recipe.groups.values()):
        return dict.fromkeys(recipe.groups, True)
    return recipe.model.groups()


def active_epochs(recipe: Recipe, trains: Mapping[str, bool], num_epochs: int) -> dict[str, ActiveEpochs]:
    """Return when each group trains.

    Args:
        recipe: The settings.
        trains: Group -> whether it trains without a ``start_epoch``.
        num_epochs: How many epochs the run has.
    """
    found = {}
    for name, trains_at_once in trains.items():
        settings = recipe.groups.get(name)
        start = settings.start_epoch if settings else None
        stop = settings.stop_epoch if settings else None
        if start is None and trains_at_once:
            start = 0
        if stop == 0:
            start = stop = None
        found[name] = ActiveEpochs(start, num_epochs if stop is None else min(stop, num_epochs))
    return found


def idle_stretches(known: Iterable[ActiveEpochs], epochs: int) -> list[tuple[int, int]]:
    """Return the stretches of a run in which no group trains: first epoch, and the epoch after the last one.

    Example:
        >>> idle_stretches([ActiveEpochs(2, 4), ActiveEpochs(5, 9), ActiveEpochs(None, 9)], 9)
        [(0, 2), (4, 5)]
    """
    idle = []
    covered = 0
    for start, stop in sorted((each.start, each.stop) for each in known if each.start is not None):
        if start > covered:
            idle.append((covered, start))
        covered = max(covered, stop)
    return [*idle, (covered, epochs)] if covered < epochs else idle


def stretches_in_words(stretches: Iterable[tuple[int, int]]) -> str:
    """Return stretches of a run in words, which count finished epochs.

    Example:
        >>> stretches_in_words([(0, 2), (4, 5)])
        'in the first 2 epochs, from 4 to 5 finished epochs'
    """
    return ", ".join(
        f"from {begin} to {end} finished epochs"
        if begin
        else f"in the first {number_of(end, 'epoch') if end > 1 else 'epoch'}"
        for begin, end in stretches
    )


def warmup_problem(scheduler: Scheduler, horizon: int) -> str | None:
    """Return what is wrong with the warm-up if a group trains for ``horizon`` ticks; None: nothing."""
    if scheduler.warmup < horizon:
        return None
    ticks = scheduler.by if horizon == 1 else f"{scheduler.by}s"
    return (
        f"a warm-up of {scheduler.warmup} leaves nothing for the schedule: the group trains for {horizon} {ticks};"
        f" warmup must be below {horizon}"
    )
