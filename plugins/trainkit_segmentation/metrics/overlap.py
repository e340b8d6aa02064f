"""Overlap of prediction and truth, class by class.

Shapes: K = classes, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
        found_KXYZ, true_KXYZ = found_LXYZ > 0.5, true_LXYZ > 0.5
        each = (found_KXYZ & true_KXYZ, found_KXYZ, true_KXYZ)
        return torch.stack([mask.flatten(1).sum(1) for mask in each], dim=1)
    size = num_classes + 1
    pairs = torch.bincount((true_LXYZ.long() * size + found_LXYZ).flatten(), minlength=size**2).reshape(size, size)
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
