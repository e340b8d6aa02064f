"""Total variation of the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Batch, Combine, Data, Loss, Outputs, component
from trainkit_ptychography.losses.poisson import uses_poisson
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe


@component
class TotalVariation(Loss):
    """Isotropic total variation of the object's phase and amplitude: the mean of the local slope over its pixels.

    It smooths noise and keeps edges: for few counts, or little overlap. Usual weights are 1e-3 to 1e-1 with the
    amplitude loss, and 100 to 400 with the Poisson loss, which sums up counts; ``weight = "auto"`` lets held-out
    patterns choose.

    Source: Rudin, Osher, Fatemi, Physica D 60 (1992) 259.

    Attributes:
        epsilon: Slope, in rad per pixel, below which the variation is rounded off.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    on_validation: ClassVar[bool] = False
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    epsilon: float = attrs.field(default=1e-4, validator=attrs.validators.gt(0.0))

    def combine(self) -> Combine:
        """Return "once": the variation of the object does not depend on the batch."""
        return "once"

    def usual_weights(self, recipe: Recipe) -> tuple[float, float]:
        """Return a range about what is usual beside the data's loss."""
        return (10.0, 1e3) if uses_poisson(recipe) else (1e-3, 1e-1)

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            live: Any = model.object
            return self._variation(live.phase()) + self._variation(live.amplitude())

        return loss

    def _variation(self, map_SHW: Tensor) -> Tensor:
        down = map_SHW[:, 1:, :-1] - map_SHW[:, :-1, :-1]
        right = map_SHW[:, :-1, 1:] - map_SHW[:, :-1, :-1]
        return ((down.square() + right.square() + self.epsilon**2).sqrt() - self.epsilon).mean()
