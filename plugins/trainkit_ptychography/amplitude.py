"""The amplitude loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import Batch, Loss, Outputs, component

if TYPE_CHECKING:
    from torch import Tensor, nn


@component
class Amplitude(Loss):
    """Squared difference of the amplitudes, summed over the detector, mean over the patterns.

    Σ (√(I + ε) − √(I_measured))², with patterns scaled to a mean total of 1, so 1 is the loss of no light at all. For
    counts this is near the best there is (the square root makes Poisson noise even), and it is kind to optimise.

    Source: Godard, Allain, Chamard, Rodenburg, Optics Express 20 (2012) 25914.

    Attributes:
        epsilon: ε, in units of a mean pattern's total; keeps the gradient finite where no light falls.
    """

    epsilon: float = attrs.field(default=1e-9, validator=attrs.validators.gt(0.0))

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            intensities: Tensor = outputs["intensities"]
            residual = (intensities + self.epsilon).sqrt() - batch["amplitudes"]
            total: Tensor = residual.square().sum() / len(intensities)
            return total

        return loss
