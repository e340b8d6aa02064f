"""Ends a run that no longer gets better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.contracts import Context, component
from trainkit.hooks.patience import Patience, PatienceHook

if TYPE_CHECKING:
    from trainkit.state import State


@component
class EarlyStopping(PatienceHook):
    """Ends the run, with a checkpoint, once a metric has not got better for some epochs.

    The patience counts anew from the start of the last parameter group: a stage still to come is never cut off.
    """

    def build(self, context: Context) -> object:
        """Make the live part."""
        return _RunWatch(self)


class _RunWatch(Patience):
    def on_epoch_end(self, state: State) -> None:
        """Look at this epoch's value."""
        starts = (each.start_epoch for each in state.groups.values() if each.start_epoch is not None)
        if said := self.ended(state, max(starts, default=0)):
            state.stop(said)
