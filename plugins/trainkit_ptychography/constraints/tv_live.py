"""The object's noise is taken out, and its edges stay: the live part.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainkit_ptychography.constraints.on_pixels import imposing_on_pixels
from trainkit_ptychography.objects.kind import LiveObject

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.tv import TotalVariationStep

_STEP = 0.125  # the largest with which Chambolle's algorithm converges


def lowering(settings: TotalVariationStep, live_object: LiveObject) -> Callable[[], None]:
    """Return the function that lowers the total variation of an object.

    Raises:
        RecipeError: The object is not made of pixels.
    """
    return imposing_on_pixels(
        live_object, "tv", lambda values_SHW: denoised(values_SHW, settings.weight_rad, settings.iterations)
    )


@torch.no_grad()
def denoised(values_SHW: Tensor, weight: float, iterations: int) -> Tensor:
    """Return the minimiser of ½ Σ (u − values)² + weight · Σ |∇u|, of each slice, as nearly as the iterations reach."""
    down_SHW, right_SHW = torch.zeros_like(values_SHW), torch.zeros_like(values_SHW)
    for _ in range(iterations):
        gradient = _gradient(_divergence(down_SHW, right_SHW) - values_SHW / weight)
        length_SHW = 1 + _STEP * (gradient[0].square() + gradient[1].square()).sqrt()
        down_SHW = (down_SHW + _STEP * gradient[0]) / length_SHW
        right_SHW = (right_SHW + _STEP * gradient[1]) / length_SHW
    return values_SHW - weight * _divergence(down_SHW, right_SHW)


def _gradient(values_SHW: Tensor) -> tuple[Tensor, Tensor]:
    down_SHW, right_SHW = torch.zeros_like(values_SHW), torch.zeros_like(values_SHW)
    down_SHW[:, :-1] = values_SHW[:, 1:] - values_SHW[:, :-1]
    right_SHW[:, :, :-1] = values_SHW[:, :, 1:] - values_SHW[:, :, :-1]
    return down_SHW, right_SHW


def _divergence(down_SHW: Tensor, right_SHW: Tensor) -> Tensor:
    """Return the negative adjoint of the gradient; the last row of one and the last column of the other are 0."""
    total_SHW = down_SHW + right_SHW
    total_SHW[:, 1:] -= down_SHW[:, :-1]
    total_SHW[:, :, 1:] -= right_SHW[:, :, :-1]
    return total_SHW
