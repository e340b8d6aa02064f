"""Scores and labels of patches of which not everything counts: not every class was annotated, or not every voxel.

Shapes: B = patches, C = scores, K = classes, L = 1 or classes, V = voxels that count, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """The patches of a batch in which the same classes and voxels count, as if there were no others.

    Attributes:
        share: Share of the batch's patches.
        logits: (B, C, X, Y, Z); where voxels are ignored (1, C, V, 1, 1), those that count.
        label: (B, L, X, Y, Z), or (1, L, V, 1, 1).
        classes: The annotated classes, as positions among all K classes.
    """

    share: float
    logits: Tensor
    label: Tensor
    classes: tuple[int, ...]


def annotated_parts(
    logits_BCXYZ: Tensor,
    label_BLXYZ: Tensor,
    annotated_BK: Tensor | None,
    ignored_B1XYZ: Tensor | None,
    exclusive: bool,
) -> Iterator[Part]:
    """Yield a batch in parts, in each of which all classes were annotated in all voxels.

    Where classes exclude each other, a voxel without a label may be background or of any class that was not annotated:
    the probabilities of all these are added up. Where classes overlap, the others are left out. Where voxels are
    ignored, each patch is a part; one in which no voxel counts is none.

    Args:
        logits_BCXYZ: Scores.
        label_BLXYZ: Labels, see `SegmentationLoss.of_one_head`.
        annotated_BK: Which classes were annotated; None: all. Reading it synchronises with the device.
        ignored_B1XYZ: Which voxels do not count; None: all count. Reading it synchronises with the device.
        exclusive: Whether classes exclude each other.

    Source:
        Shi, Xiao, Chen, Zhou, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
        Medical Image Analysis 70 (2021) 101979, section 3.1.
    """
    if ignored_B1XYZ is not None and bool(ignored_B1XYZ.any()):
        for b, ignored_1XYZ in enumerate(ignored_B1XYZ):
            logits_1CV11, label_1LV11 = (
                each_BCXYZ[b][:, ~ignored_1XYZ[0]][None, :, :, None, None] for each_BCXYZ in (logits_BCXYZ, label_BLXYZ)
            )
            if label_1LV11.numel():
                row_1K = None if annotated_BK is None else annotated_BK[b : b + 1]
                for part in annotated_parts(logits_1CV11, label_1LV11, row_1K, None, exclusive):
                    yield part._replace(share=1 / len(ignored_B1XYZ))
        return
    num_classes = logits_BCXYZ.shape[1] - exclusive
    every = tuple(range(num_classes))
    if annotated_BK is None:
        yield Part(1.0, logits_BCXYZ, label_BLXYZ, every)
        return
    rows = [tuple(k for k, known in enumerate(row) if known) for row in annotated_BK.tolist()]
    for classes in dict.fromkeys(rows):
        chosen = [b for b, row in enumerate(rows) if row == classes]
        logits, label = logits_BCXYZ[chosen], label_BLXYZ[chosen]
        if classes != every:
            only = _only_exclusive if exclusive else _only_overlapping
            logits, label = only(logits, label, classes)
        yield Part(len(chosen) / len(rows), logits, label, classes)


def _only_exclusive(logits_BCXYZ: Tensor, label_B1XYZ: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    kept = [k + 1 for k in classes]
    others = [c for c in range(logits_BCXYZ.shape[1]) if c not in kept]
    background_B1XYZ = torch.logsumexp(logits_BCXYZ[:, others], dim=1, keepdim=True)
    new_code = torch.zeros(logits_BCXYZ.shape[1], dtype=label_B1XYZ.dtype, device=label_B1XYZ.device)
    new_code[kept] = torch.arange(1, len(kept) + 1, dtype=label_B1XYZ.dtype, device=label_B1XYZ.device)
    return torch.cat([background_B1XYZ, logits_BCXYZ[:, kept]], dim=1), new_code[label_B1XYZ.long()]


def _only_overlapping(logits_BKXYZ: Tensor, label_BKXYZ: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    return logits_BKXYZ[:, list(classes)], label_BKXYZ[:, list(classes)]
