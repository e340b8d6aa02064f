"""Ends a run whose metric has stopped improving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.contracts import Context, component
from trainkit.events import Live
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
        return _RunWatch(Patience(self))


@attrs.define
class _RunWatch(Live):
    patience: Patience

    def on_epoch_end(self, state: State) -> None:
        """Check this epoch's value."""
        starts = (each.start_epoch for each in state.groups.values() if each.start_epoch is not None)
        if reason := self.patience.ended(state, max(starts, default=0)):
            state.stop(reason)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON."""
        return self.patience.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.patience.load_state_dict(saved)
