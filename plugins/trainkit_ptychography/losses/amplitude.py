"""The amplitude loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Batch, Data, Depth, Loss, Outputs, Problem, Progress, component
from trainkit_ptychography.losses.poisson import Poisson
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe


@component
class Amplitude(Loss):
    """Squared difference of the amplitudes, summed over the detector, averaged over the patterns; for many counts.

    Σ (√(I + ε) − √(I_measured))². Patterns are scaled to a mean total of 1, so a model without any light has a loss of
    1. The square root makes the noise of many counts even, whatever their unit. Where a pixel has few counts, most of
    their roots are 0, and the phase comes out too weak: take "poisson" there. Masked pixels do not count.

    Source: Godard, Allain, Chamard, Rodenburg, Optics Express 20 (2012) 25914.

    Attributes:
        epsilon: ε, in units of a mean pattern's total; keeps the gradient finite where no light falls.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    epsilon: float = attrs.field(default=1e-9, validator=attrs.validators.gt(0.0))

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Say where roots of few counts make the phase too weak, and doubt them where that is much."""
        others = recipe.losses.values()
        if depth == "headers" or not isinstance(recipe.data, DiffractionData):
            return
        if any(isinstance(each, Poisson) for each in others):
            return
        from trainkit_ptychography.scans.few_counts import counts_in

        counts = counts_in(recipe.data.read())
        if counts is None or not counts.are_few:
            return
        message = f'{counts.in_words()}. Take use = "poisson", which compares counts'
        yield Problem(message, "use", "warning") if counts.are_very_few else f"loss         {message}"

    def build(self, data: Any) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function."""
        from trainkit_ptychography.losses.statistics_live import squared_amplitudes

        mask_YX: Tensor | None = data.mask_YX

        def loss(outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
            mask = batch.get("mask", mask_YX)  # of each pattern, where they differ
            return squared_amplitudes(outputs["intensities"], batch["amplitudes"], mask, self.epsilon)

        return loss
