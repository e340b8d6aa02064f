"""A loss: what training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainkit import Batch, Loss, Outputs, component

from trainkit_example.line import Line

if TYPE_CHECKING:
    from torch import Tensor, nn


@component
class Squares(Loss):
    """The mean squared error."""

    accepts = Line

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            return (outputs["y"] - batch["y"]).square().mean()  # the mean over the items of the batch

        return loss
