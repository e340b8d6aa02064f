"""Cross-entropy of scores and labels.

Shapes: B = patches of a batch, K = scores, L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax


def cross_entropy(
    logits_BKXYZ: Tensor, label_BLXYZ: Tensor, exclusive: bool, reduction: Literal["mean", "sum"]
) -> Tensor:
    """Return the mean or the sum over voxels; where classes overlap, binary and over classes too.

    Args:
        logits_BKXYZ: Scores.
        label_BLXYZ: Labels, see `SegmentationLoss.of_one_head`.
        exclusive: Whether classes exclude each other.
        reduction: What is returned. There is one value for each element of the label.
    """
    if not exclusive:
        return binary_cross_entropy_with_logits(logits_BKXYZ, label_BLXYZ, reduction=reduction)
    # torch's own cross-entropy has no deterministic form on CUDA for labels that are numbers.
    chosen_B1XYZ = log_softmax(logits_BKXYZ, dim=1).gather(1, label_BLXYZ.long())
    return -(chosen_B1XYZ.mean() if reduction == "mean" else chosen_B1XYZ.sum())
