"""The model's own forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainkit.contracts import Batch, Inference, Outputs, component

if TYPE_CHECKING:
    from torch import nn


@component
class Plain(Inference):
    """Calls the model's own forward for each batch. For data whose items fit into the model as a whole."""

    def build(self, data: Any) -> Callable[[nn.Module, Batch], Outputs]:
        """Make the function."""
        return _forward


def _forward(model: nn.Module, batch: Batch) -> Outputs:
    outputs: Outputs = model(batch)
    return outputs
