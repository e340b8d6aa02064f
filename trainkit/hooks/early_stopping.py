"""Ends a run whose metric has stopped improving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.contracts import Context, component
from trainkit.hooks.patience import Patience, PatienceHook

if TYPE_CHECKING:
    from trainkit.state import State


@component
class EarlyStopping(PatienceHook):
    """Ends the run, with a checkpoint, when a metric has not improved for a number of epochs.

    The patience counts from the start of the last parameter group at the earliest, so every group gets to train.
    """

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _RunWatch(self)


class _RunWatch(Patience):
    def on_epoch_end(self, state: State) -> None:
        """Check this epoch's value."""
        starts = (each.start_epoch for each in state.groups.values() if each.start_epoch is not None)
        if reason := self.ended(state, max(starts, default=0)):
            state.stop(reason)
