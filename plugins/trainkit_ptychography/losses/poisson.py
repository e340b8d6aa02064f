"""The Poisson loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs.validators import gt, optional

from trainkit import Batch, Data, Loss, Outputs, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe

_MOST_COUNTS = 1e-2
_SHARE = 3e-3  # of the mean count; from 1e5 to 1e3 e/Å², held-out patterns chose 0.2 to 0.8 % (docs/hash_or_pixels.md)


@component
class Poisson(Loss):
    """Negative log-likelihood of the counts, summed over the detector, averaged over the patterns; for few counts.

    Σ (μ − n) − n ln(μ / n), with the counts n and the expected counts μ = intensity + ε. It is the difference to the
    likelihood of a model that fits each count exactly: 0 is the best value, and noise alone costs half the number of
    lit pixels. The data must be in counts: other units make the noise seem stronger or weaker than it is, which matters
    if there are regularisers. Masked pixels do not count.

    Source: Thibault, Guizar-Sicairos, New Journal of Physics 14 (2012) 063004, eq. 4.

    Attributes:
        epsilon_counts: ε, a background in counts per pixel: without it, a count where the model expects none would be
            infinitely unlikely. None: 0.01, or 0.3 % of a pixel's mean count if that is less; much more would hide what
            few electrons tell.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    epsilon_counts: float | None = attrs.field(default=None, validator=optional(gt(0.0)))

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""
        from trainkit_ptychography.losses.statistics_live import deviance

        mask_YX: Tensor | None = data.mask_YX
        mean_counts: float = data.mean_counts
        given = self.epsilon_counts

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            intensities_BYX = outputs["intensities"]
            epsilon = given or min(_MOST_COUNTS, _SHARE * mean_counts / intensities_BYX[0].numel())
            mask = batch.get("mask", mask_YX)  # of each pattern, where they differ
            return deviance(intensities_BYX, batch["amplitudes"], mask, mean_counts, epsilon)

        return loss


def uses_poisson(recipe: Recipe) -> bool:
    """Return whether a recipe's loss sums up counts, beside which weights of regularisers are hundreds of times larger.

    Args:
        recipe: The recipe.
    """
    return any(isinstance(loss, Poisson) for loss in recipe.losses.values())
