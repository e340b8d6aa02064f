"""Overlap of what was found with what is there, class by class.

Shapes: K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_counts(found_1XYZ: Tensor, true_1XYZ: Tensor, num_classes: int) -> Tensor:
    """Return for each class the number of voxels in both, in what was found, and in the truth.

    Args:
        found_1XYZ: Labels, 0 for the background and 1 … ``num_classes``.
        true_1XYZ: The same.
        num_classes: K.

    Returns:
        (K, 3) int64.
    """
    size = num_classes + 1
    pairs = torch.bincount((true_1XYZ * size + found_1XYZ).flatten(), minlength=size**2).reshape(size, size)
    return torch.stack([pairs.diagonal(), pairs.sum(0), pairs.sum(1)], dim=1)[1:]


def mask_counts(found_KXYZ: Tensor, true_KXYZ: Tensor) -> Tensor:
    """Return for each class the number of voxels in both, in what was found, and in the truth; (K, 3) int64."""
    each = (found_KXYZ & true_KXYZ, found_KXYZ, true_KXYZ)
    return torch.stack([mask.flatten(1).sum(1) for mask in each], dim=1)


def dice(counts_K3: Tensor) -> Tensor:
    """Return the Dice coefficient of each class, (K,) float64; NaN where it is in neither.

    Source:
        Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945) 297.
    """
    both, found, true = counts_K3.double().unbind(1)
    return 2 * both / (found + true)
