"""The intensity loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import Batch, Data, Loss, Outputs, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn


@component
class Intensity(Loss):
    """Mean squared difference of the intensities, in units of a detector pixel's mean intensity.

    This is the likelihood for noise that is equally strong everywhere, for example that of an integrating detector in
    strong light. Bright pixels dominate it; where photons or electrons are counted, "amplitude" or "poisson" also use
    what dark pixels tell. Masked pixels do not count.

    Source: Godard, Allain, Chamard, Rodenburg, Optics Express 20 (2012) 25914.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""
        mask_YX: Tensor | None = data.mask_YX

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            intensities_BYX: Tensor = outputs["intensities"]
            num_pixels = intensities_BYX[0].numel()  # a mean pattern's total is 1, so a pixel's mean is 1 / num_pixels
            residual_BYX = intensities_BYX - batch["amplitudes"].square()
            mask = batch.get("mask", mask_YX)  # of each pattern, where they differ
            if mask is not None:
                residual_BYX = residual_BYX * mask
            total: Tensor = num_pixels * residual_BYX.square().sum() / len(intensities_BYX)
            return total

        return loss
