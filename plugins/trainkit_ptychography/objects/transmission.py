"""From maps of an object's phase and absorption to its transmission, exp(i·phase − absorption).

Shapes: K = 2 (phase, absorption) or 1 (phase), S = slices, B = patterns of a batch, H, W = rows and columns of the
object, Y, X = those of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit_ptychography.physics.patches import crop
from trainkit_ptychography.physics.transmission import transmission


def amplitude(maps_KSHW: Tensor) -> Tensor:
    """Return the amplitude (S, H, W), 1 for vacuum."""
    return torch.exp(-maps_KSHW[1]) if len(maps_KSHW) == 2 else torch.ones_like(maps_KSHW[0])


def transmission_of_patches(maps_KSHW: Tensor, corner_B2: Tensor, shape_YX: tuple[int, int]) -> Tensor:
    """Return the transmission of patches, complex (S, B, Y, X).

    Args:
        maps_KSHW: Phase in rad; and absorption, minus the logarithm of the amplitude.
        corner_B2: First row and column of each patch, integers; each patch lies within the maps.
        shape_YX: Rows and columns of a patch.
    """
    height, width = maps_KSHW.shape[2:]
    # Exponentials are dear: take them where there are fewer pixels, in the whole object or in all patches.
    if height * width <= len(corner_B2) * shape_YX[0] * shape_YX[1]:
        return crop(transmission(maps_KSHW), corner_B2, shape_YX)
    return transmission(crop(maps_KSHW, corner_B2, shape_YX))
