"""The stages of a run: epochs that follow each other and cost the same, because the same things happen in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from trainkit.groups.plan import GroupPlan
    from trainkit.recipe.root import Recipe
    from trainkit.state import Group


@attrs.frozen
class Stage:
    """What happens in the epochs of a stage.

    Attributes:
        phases: Group that trains -> name of its phase, "" for the first one; as pairs.
        changes: How many epochs came before or at its beginning in which a part changes what it computes
            (`Component.timeline`), for example into how many slices it divides a specimen.
    """

    phases: frozenset[tuple[str, str]]
    changes: int = 0

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups that train."""
        return frozenset(group for group, _ in self.phases)

    @property
    def key(self) -> str:
        """Its name in a file, for example "object/finish probe 0"."""
        groups = (f"{group}/{phase}" if phase else group for group, phase in sorted(self.phases))
        return " ".join([*groups, str(self.changes)])

    def covers(self, other: Stage) -> bool:
        """Return whether all that happens in another stage happens in this one, so that the other is no dearer."""
        return other.groups <= self.groups and other.changes == self.changes

    def difference(self, other: Stage) -> tuple[int, int, int]:
        """Return how much another stage differs: more counts for more, the first number most."""
        return (
            abs(self.changes - other.changes),
            len(self.groups ^ other.groups),
            len(self.phases ^ other.phases),
        )


class Stages:
    """The stages of a run, as its plan is now: a group may be stopped earlier than planned.

    Args:
        recipe: The settings.
        groups: Name -> group, as it is now.
        plans: Name -> plan, as it is now.
        epochs: Number of epochs of the run.
    """

    def __init__(
        self, recipe: Recipe, groups: Mapping[str, Group], plans: Mapping[str, GroupPlan], epochs: int
    ) -> None:
        self._groups, self._plans = groups, plans
        parts = (recipe.data, recipe.model, *recipe.losses.values())
        self._changes = sorted({epoch for part in parts for epoch, _ in part.timeline(epochs) if epoch > 0})

    def at(self, epoch: int) -> Stage:
        """Return the stage of an epoch."""
        phases = frozenset(
            (name, self._plans[name].phase_at(epoch).name if name in self._plans else "")
            for name, group in self._groups.items()
            if group.parameters and group.trains_in(epoch)
        )
        return Stage(phases, sum(each <= epoch for each in self._changes))

    def between(self, begin: int, end: int) -> Iterator[tuple[int, int, Stage]]:
        """Yield the first epoch of each stage in some epochs, the first one after it, and the stage."""
        bounds = {begin, end, *self._changes}
        for name, group in self._groups.items():
            bounds |= {each for each in (group.start_epoch, group.stop_epoch) if each is not None}
            if name in self._plans:
                starts = (phase.epochs.start for phase in self._plans[name].phases)
                bounds |= {each for each in starts if each is not None}
        inside = sorted(each for each in bounds if begin <= each <= end)
        for first, stop in pairwise(inside):
            yield first, stop, self.at(first)
