"""Neighbouring slices are alike: the live part.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainkit_ptychography.constraints.along_beam import known_spacing_angstrom
from trainkit_ptychography.constraints.on_pixels import imposing_on_pixels
from trainkit_ptychography.objects.kind import LiveObject

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.slice_coupling import SliceCoupling


def coupling(settings: SliceCoupling, live_object: LiveObject) -> Callable[[], None]:
    """Return the function that smooths an object along the beam.

    Raises:
        RecipeError: The object has no slices of pixels.
    """
    sigma = settings.sigma_angstrom / known_spacing_angstrom(live_object, "slice_coupling")

    @cache  # a copy to a device in each step would wait for it
    def weights(num: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return gaussian_weights(num, sigma).to(device, dtype)

    @torch.no_grad()
    def smoothed(values_SHW: Tensor) -> Tensor:
        weights_SS = weights(len(values_SHW), values_SHW.dtype, values_SHW.device)
        return (weights_SS @ values_SHW.flatten(1)).view_as(values_SHW)

    return imposing_on_pixels(live_object, "slice_coupling", smoothed)


def gaussian_weights(num: int, sigma: float) -> Tensor:
    """Return the weights (S, S) of a Gaussian over slices; what falls beyond an end counts for the slice at the end.

    Args:
        num: Number of slices.
        sigma: Standard deviation, in slices.
    """
    reach = max(1, ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    gaussian = torch.exp(-0.5 * (offsets / sigma).square())
    weights_SS = torch.zeros(num, num, dtype=torch.float64)
    slices_S = torch.arange(num)
    for offset, weight in zip(offsets.long(), gaussian / gaussian.sum(), strict=True):
        weights_SS.index_put_((slices_S, (slices_S + offset).clamp(0, num - 1)), weight, accumulate=True)
    return weights_SS
