"""What a network finds in a case, on the case's own voxel grid: worked out once for all who ask.

Shapes: K = scores (classes, and the background where they exclude each other), L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from trainkit import Batch, Outputs
from trainkit_segmentation.live_segmentation import LiveSegmentation

_known: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()  # logits -> what was found; gone with the logits


def prediction(outputs: Outputs, batch: Batch, data: LiveSegmentation) -> Tensor:
    """Return what was found in a batch of evaluation, in the convention of `LiveSegmentation.truth`.

    Returns:
        Where classes exclude each other (1, X, Y, Z) int64, 0 for the background; else (L, X, Y, Z) bool.
    """
    logits: Tensor = outputs["logits"]
    found = _known.get(logits)
    if found is None:
        scores_KXYZ = data.to_original(logits[0].float(), batch["case"])
        # Beyond the preprocessed volume scores are 0: background, and no class.
        found = scores_KXYZ.argmax(0, keepdim=True) if data.exclusive else scores_KXYZ > 0
        _known[logits] = found
    return found


def masks(labels_LXYZ: Tensor, data: LiveSegmentation) -> Tensor:
    """Return labels in either convention as a mask for each class, (classes, X, Y, Z) bool."""
    if not data.exclusive:
        return labels_LXYZ > 0.5
    return torch.cat([labels_LXYZ == i + 1 for i in range(len(data.classes))])
