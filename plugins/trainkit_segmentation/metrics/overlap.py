"""Overlap of prediction and truth, class by class.

Shapes: K = classes, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PART = 1 << 22  # voxels that are counted at once: a CT has a hundred million, and each takes 8 bytes as a number


def counts(found_LXYZ: Tensor, true_LXYZ: Tensor, num_classes: int, exclusive: bool) -> Tensor:
    """Return for each class the number of voxels in both, in the prediction, and in the truth.

    Args:
        found_LXYZ: The prediction. Where classes exclude each other, labels (1, X, Y, Z): 0 for the background,
            1 … ``num_classes``; otherwise a mask for each class.
        true_LXYZ: The truth, in the same form.
        num_classes: Number K of foreground classes.
        exclusive: Whether classes exclude each other.

    Returns:
        (K, 3) int64.
    """
    if not exclusive:
        rows = []
        for found_XYZ, true_XYZ in zip(found_LXYZ, true_LXYZ, strict=True):
            found_XYZ, true_XYZ = found_XYZ.bool(), true_XYZ.bool()
            # A sum of a bool tensor takes twenty times as long.
            rows.append(
                torch.stack([torch.count_nonzero(each) for each in (found_XYZ & true_XYZ, found_XYZ, true_XYZ)])
            )
        return torch.stack(rows)
    size = num_classes + 1
    pairs = torch.zeros(size**2, dtype=torch.int64, device=found_LXYZ.device)
    parts = zip(torch.split(found_LXYZ.flatten(), _PART), torch.split(true_LXYZ.flatten(), _PART), strict=True)
    for found_V, true_V in parts:
        pairs += torch.bincount(true_V.long() * size + found_V, minlength=size**2)
    pairs = pairs.reshape(size, size)
    return torch.stack([pairs.diagonal(), pairs.sum(0), pairs.sum(1)], dim=1)[1:]


def dice(counts_K3: Tensor) -> Tensor:
    """Return the Dice coefficient of each class, (K,) float64; NaN if neither has the class.

    Args:
        counts_K3: What `counts` returned.

    Source:
        Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945) 297.
    """
    both, found, true = counts_K3.double().unbind(1)
    return 2 * both / (found + true)
