"""An anchor for scan positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Batch, Data, DataError, Loss, Outputs, Problem, component
from trainkit_ptychography.losses.poisson import uses_poisson
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe

_positive = attrs.validators.optional(attrs.validators.gt(0.0))


@component
class PositionAnchor(Loss):
    """Keeps scan points near the positions that the data gives: |dr|² / 2σ², averaged over a batch.

    The negative logarithm of a Gaussian of width σ. With the loss "poisson", a weight of 1 is exactly that prior;
    with "amplitude", a weight of 1 / (2 · counts of a pattern) is.

    Attributes:
        sigma_pixels: σ along each axis, in pixels of the object.
        sigma_angstrom: The same in Å; give one of the two.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    on_validation: ClassVar[bool] = False
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    sigma_pixels: float | None = attrs.field(default=None, validator=_positive)
    sigma_angstrom: float | None = attrs.field(default=None, validator=_positive)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that exactly one σ is given, and that positions move at all."""
        if (self.sigma_pixels is None) == (self.sigma_angstrom is None):
            yield "give either sigma_pixels or sigma_angstrom: by how much positions are likely to be wrong"
        if "dr" not in recipe.groups or recipe.groups["dr"].start_epoch is None:
            yield Problem("group dr never trains, so there is nothing to anchor", severity="warning")

    def usual_weights(self, recipe: Recipe) -> tuple[float, float]:
        """Return a range about the weight of the prior; beside the amplitude loss, for hundreds to 1e5 counts."""
        return (0.1, 10.0) if uses_poisson(recipe) else (1e-5, 1e-2)

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""
        sigma = self.sigma_pixels
        if sigma is None:
            if data.scan.pixel_size_angstrom is None:
                raise DataError(
                    f"{data.scan.source} gives no pixel size, so sigma_angstrom of position_anchor means nothing: use "
                    "sigma_pixels"
                )
            sigma = (self.sigma_angstrom or 0.0) / data.scan.pixel_size_angstrom

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            live: Any = model
            displacement_B2: Tensor = live.dr.index_select(0, batch["index"])
            return displacement_B2.square().sum() / (2 * sigma**2 * len(displacement_B2))

        return loss
