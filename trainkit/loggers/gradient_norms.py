"""Norms of the gradients of parameter groups, computed and added up on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.state import State


@attrs.define
class GradientNorms:
    """The norms of the gradients of those groups that train, and their means over an epoch.

    Nothing is read from the device until a mean or the last norm is wanted. A norm that is not finite, as in a step
    that fp16 skips, is left out of the mean.

    Attributes:
        latest: Group -> norm of the gradient that was added last.
        sums: Group -> sum of the finite norms in this epoch, and their number, as one tensor (2,).
    """

    latest: dict[str, Tensor] = attrs.Factory(dict)
    sums: dict[str, Tensor] = attrs.Factory(dict)

    def start_epoch(self) -> None:
        """Forget the last epoch."""
        self.latest, self.sums = {}, {}

    def add(self, state: State) -> None:
        """Add the norms of the present gradients."""
        import torch

        self.latest = {}
        for name, group in state.groups.items():
            gradients = [each.grad for each in group.parameters.values() if each.grad is not None]
            if group.active and gradients:
                norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
                self.latest[name] = norm
                is_finite = norm.isfinite()
                both = torch.stack((norm.where(is_finite, 0.0), is_finite.to(norm.dtype)))
                self.sums[name] = both + self.sums[name].to(both) if name in self.sums else both

    def last(self) -> dict[str, float]:
        """Return the norms of the gradients that were added last; this waits for the device."""
        return {name: float(norm) for name, norm in self.latest.items()}

    def means(self) -> dict[str, float]:
        """Return the mean norms of the epoch; this waits for the device."""
        read = {name: both.tolist() for name, both in self.sums.items()}
        return {name: total / count for name, (total, count) in read.items() if count}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch."""
        return {name: both.tolist() for name, both in self.sums.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        import torch

        self.sums = {str(name): torch.tensor([float(each) for each in both]) for name, both in saved.items()}
