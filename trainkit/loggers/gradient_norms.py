"""Norms of the gradients of parameter groups, computed on the device and read rarely."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.state import State


_FEW = 100_000  # values that are put together before their norm is computed
_FOLD = 16  # gradients of one group that are kept on the device before their norms are read


@attrs.define
class GradientNorms:
    """The norms of the gradients of those groups that train, and their means over an epoch.

    A norm that is not finite, as in a step that fp16 skips, is left out of the mean. Norms are added one after the
    other, so that a mean has the same bits however many were read at a time.

    Attributes:
        unread: Group -> of each gradient whose norm was not read yet, values with the same norm (`_values`).
        latest: Group -> those of the gradient that was added last.
        sums: Group -> sum of the finite norms that were read in this epoch, and their number.
        together: Group -> whether its gradients are put together (`_are_few`): to look at them costs more than that.
    """

    unread: dict[str, list[Tensor]] = attrs.Factory(dict)
    latest: dict[str, Tensor] = attrs.Factory(dict)
    sums: dict[str, tuple[float, float]] = attrs.Factory(dict)
    together: dict[str, bool] = attrs.Factory(dict)

    def start_epoch(self) -> None:
        """Forget the last epoch."""
        self.unread, self.latest, self.sums = {}, {}, {}

    def add(self, state: State) -> None:
        """Add the present gradients."""
        self.latest = {}
        for name, group in state.groups.items():
            gradients = [each.grad for each in group.parameters.values() if each.grad is not None]
            if group.active and gradients:
                if name not in self.together:
                    self.together[name] = _are_few(group.parameters.values())
                self.latest[name] = values = _values(gradients, together=self.together[name])
                self.unread.setdefault(name, []).append(values)
                if len(self.unread[name]) == _FOLD:
                    self._read()

    def _read(self) -> None:
        import torch

        for name, kept in self.unread.items():
            total, count = self.sums.get(name, (0.0, 0.0))
            for norm in torch.stack(torch._foreach_norm(kept)).tolist() if kept else ():
                if isfinite(norm):
                    total, count = total + norm, count + 1
            self.sums[name] = total, count
            kept.clear()

    def last(self) -> dict[str, float]:
        """Return the norms of the gradients that were added last; this waits for the device."""
        import torch

        return {name: float(torch.linalg.vector_norm(values)) for name, values in self.latest.items()}

    def means(self) -> dict[str, float]:
        """Return the mean norms of the epoch; this waits for the device."""
        self._read()
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch."""
        self._read()
        return {name: list(both) for name, both in self.sums.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.unread, self.latest = {}, {}
        self.sums = {str(name): (float(total), float(count)) for name, (total, count) in saved.items()}


def _are_few(parameters: Collection[Tensor]) -> bool:
    """Return whether a group has so few values, of one type, that they are put together for their norm."""
    return len({each.dtype for each in parameters}) == 1 and sum(each.numel() for each in parameters) <= _FEW


def _values(gradients: list[Tensor], *, together: bool) -> Tensor:
    """Return values whose norm is that of some gradients; a hook may change the gradients themselves after this.

    Few values are put together, which is one operation; of many, the norm of each tensor is computed where it lies.
    """
    import torch

    if together:
        if len(gradients) == 1:
            return gradients[0].clone()
        flat: Tensor = torch._C._nn.flatten_dense_tensors(gradients)  # half the time of `cat`, and views of each
        return flat
    return torch.stack(torch._foreach_norm(gradients))
