"""Soft Dice of any number of patches, from sums that can be added up part by part.

Shapes: B = patches, K = classes, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_SMOOTH = 1e-5  # MONAI's, in numerator and denominator


def dice_sums(
    logits_BKXYZ: Tensor, label_BLXYZ: Tensor, *, exclusive: bool, include_background: bool, squared: bool = False
) -> Tensor:
    """Return twice the overlap of probability and label, and the sum of their sizes, for each class.

    Args:
        logits_BKXYZ: Scores.
        label_BLXYZ: Labels, see `SegmentationLoss.of_one_head`.
        exclusive: Whether classes exclude each other: softmax, else a sigmoid for each class.
        include_background: Whether the first of exclusive classes counts.
        squared: Whether sizes are sums of squares.

    Returns:
        (2, K), or (2, K − 1) without the background.
    """
    if exclusive:
        found = torch.softmax(logits_BKXYZ, dim=1)
        true = one_hot(label_BLXYZ[:, 0].long(), logits_BKXYZ.shape[1]).movedim(-1, 1).to(found.dtype)
        if not include_background:
            found, true = found[:, 1:], true[:, 1:]
    else:
        found, true = torch.sigmoid(logits_BKXYZ), label_BLXYZ
    size = found.square() + true.square() if squared else found + true
    return torch.stack([2 * _over_voxels(found * true), _over_voxels(size)])


def dice_loss(sums_2K: Tensor) -> Tensor:
    """Return one minus soft Dice, the mean over classes, of what `dice_sums` gave for all parts together."""
    overlap_K, size_K = sums_2K
    loss: Tensor = (1 - (overlap_K + _SMOOTH) / (size_K + _SMOOTH)).mean()
    return loss


def _over_voxels(values_BKXYZ: Tensor) -> Tensor:
    wide = torch.promote_types(values_BKXYZ.dtype, torch.float32)
    return values_BKXYZ.sum((0, 2, 3, 4), dtype=wide)
