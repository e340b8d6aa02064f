"""The mean size of the object's phase and absorption."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import Batch, Combine, Data, Loss, Outputs, component
from trainkit_ptychography.losses.poisson import uses_poisson
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe


@component
class L1(Loss):
    """Mean absolute phase (rad) and absorption of the object's pixels: prefers an object that is mostly vacuum.

    Patterns tell nothing about the mean phase of a slice. With phases that cannot be negative (constraint "limits",
    ``min_phase_rad = 0.0``), this loss brings what lies between atoms to 0. Usual weights are 1e-2 to 1e-1 with the
    amplitude loss, and as many times more with the Poisson loss as a pattern has counts, divided by 2.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    on_validation: ClassVar[bool] = False
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    def combine(self) -> Combine:
        """Return "once": it does not depend on the batch."""
        return "once"

    def usual_weights(self, recipe: Recipe) -> tuple[float, float]:
        """Return a range about what is usual beside the data's loss, for patterns of some hundreds of counts."""
        return (1.0, 100.0) if uses_poisson(recipe) else (3e-3, 3e-1)

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            live: Any = model.object
            if (slices := getattr(live, "slices", None)) is not None:  # phase, and absorption if it absorbs at all
                means: Tensor = slices().abs().mean((1, 2, 3))
                return means.sum()
            total: Tensor = live.phase().abs().mean() + live.amplitude().log().abs().mean()
            return total

        return loss
