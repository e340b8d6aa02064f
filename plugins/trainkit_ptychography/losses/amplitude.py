"""The amplitude loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Batch, Data, Loss, Outputs, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn


@component
class Amplitude(Loss):
    """Squared difference of the amplitudes, summed over the detector, averaged over the patterns. Start with this one.

    Σ (√(I + ε) − √(I_measured))². Patterns are scaled to a mean total of 1, so a model without any light has a loss of
    1. For counts this is close to the best loss there is, since the square root makes Poisson noise even, and it is
    easy to optimise. Masked pixels do not count.

    Source: Godard, Allain, Chamard, Rodenburg, Optics Express 20 (2012) 25914.

    Attributes:
        epsilon: ε, in units of a mean pattern's total; keeps the gradient finite where no light falls.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]

    epsilon: float = attrs.field(default=1e-9, validator=attrs.validators.gt(0.0))

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""
        mask_YX: Tensor | None = data.mask_YX

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            intensities_BYX: Tensor = outputs["intensities"]
            residual_BYX = (intensities_BYX + self.epsilon).sqrt() - batch["amplitudes"]
            mask = batch.get("mask", mask_YX)  # of each pattern, where they differ
            if mask is not None:
                residual_BYX = residual_BYX * mask
            total: Tensor = residual_BYX.square().sum() / len(intensities_BYX)
            return total

        return loss
