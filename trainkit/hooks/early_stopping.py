"""Ends a run whose metric has stopped improving."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from trainkit.contracts import Context, Wait, component
from trainkit.hooks.patience import Patience, PatienceHook

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


@component
class EarlyStopping(PatienceHook):
    """Ends the run, with a checkpoint, when a metric has not improved for a number of epochs.

    The patience counts from the start of the last parameter group at the earliest, so every group gets to train. With
    ``validation.beside = true``, the run ends after one epoch more, whose values count for what is best.
    """

    def waits(self, recipe: Recipe) -> Iterable[Wait]:
        """Yield that the run is stopped at the end of the patience."""
        last = max((group.start_epoch or 0 for group in recipe.groups.values()), default=0)
        yield Wait("stop the run early", "patience", partial(self.first_end, first_epoch=last), self.metric)

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _RunWatch(self)


class _RunWatch(Patience):
    def on_epoch_end(self, state: State) -> None:
        """Check the newest value on which the run may act."""
        starts = [each.start_epoch for each in state.groups.values() if each.start_epoch is not None]
        for values in state.values_to_act_on:
            if reason := self.ended(values, state, max(starts, default=0)):
                state.stop(reason)
