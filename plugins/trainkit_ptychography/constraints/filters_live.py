"""Filters of the object in Fourier space, slice by slice: the live part of "low_pass" and "gaussian".

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainkit_ptychography.constraints.across_beam import pixel_size_for
from trainkit_ptychography.constraints.on_pixels import imposing_on_pixels
from trainkit_ptychography.objects.kind import LiveObject
from trainkit_ptychography.probes.modes import ProbeModes

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.gaussian import Gaussian
    from trainkit_ptychography.constraints.low_pass import LowPass


def low_pass(settings: LowPass, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
    """Return the function that takes short periods out of an object.

    Raises:
        RecipeError: The object is not made of pixels.
        DataError: The size of its pixels is not known.
    """

    def keep(squared_HW: Tensor) -> Tensor:
        return 1 / (1 + (squared_HW * settings.shortest_period_angstrom**2) ** settings.order)

    size = pixel_size_for("low_pass", probe)
    return imposing_on_pixels(live_object, "low_pass", lambda values_SHW: _filtered(values_SHW, size, keep))


def gaussian(settings: Gaussian, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
    """Return the function that smooths an object.

    Raises:
        RecipeError: The object is not made of pixels.
        DataError: The size of its pixels is not known.
    """

    def keep(squared_HW: Tensor) -> Tensor:
        smoothed_HW = torch.exp(-2 * pi**2 * settings.sigma_angstrom**2 * squared_HW)
        return 1 - settings.weight * (1 - smoothed_HW)

    size = pixel_size_for("gaussian", probe)
    return imposing_on_pixels(live_object, "gaussian", lambda values_SHW: _filtered(values_SHW, size, keep))


@torch.no_grad()
def _filtered(values_SHW: Tensor, pixel_size: float, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """Return values of which the Fourier transform was multiplied by a function of the squared frequency in 1/Å²."""
    height, width = values_SHW.shape[1:]
    dtype, device = values_SHW.dtype, values_SHW.device
    squared_H = torch.fft.fftfreq(height, pixel_size, dtype=dtype, device=device).square()
    squared_W = torch.fft.rfftfreq(width, pixel_size, dtype=dtype, device=device).square()
    kept_HW = keep(squared_H[:, None] + squared_W[None, :])
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(values_SHW) * kept_HW, s=(height, width))
    return result
