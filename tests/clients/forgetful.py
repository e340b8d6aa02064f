"""A hook that remembers something and does not save it: what verify-resume is there to find."""

from __future__ import annotations

import torch

from trainkit import Context, Hook, State, component


@component
class Forgetful(Hook):
    """Shakes a parameter by how many epochs it has seen, and forgets that when the run is stopped."""

    def build(self, context: Context) -> object:
        return LiveForgetful()


class LiveForgetful:
    seen = 0

    def on_epoch_start(self, state: State) -> None:
        self.seen += 1
        parameter = next(iter(next(iter(state.groups.values())).parameters.values()))
        with torch.no_grad():
            parameter[0, 0] += 0.01 * self.seen
