"""What a network finds in a case, on the case's own voxel grid: worked out once for all who ask.

Shapes: K = scores (classes, and the background where they exclude each other), L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from trainkit import Batch, Outputs
from trainkit_segmentation.data.kind_live import LiveSegmentation

_known: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()  # logits -> what was found; gone with the logits


def prediction(outputs: Outputs, batch: Batch, data: LiveSegmentation) -> Tensor:
    """Return what was found in a batch of evaluation, in the convention of `LiveSegmentation.truth`.

    Returns:
        Where classes exclude each other (1, X, Y, Z) uint8, 0 for the background; else (L, X, Y, Z) bool.
    """
    logits: Tensor = outputs["logits"]
    found = _known.get(logits)
    if found is None:
        found = _known[logits] = _most_likely(logits[0], batch["case"], data)
    return found


def _most_likely(logits_KXYZ: Tensor, case: str, data: LiveSegmentation) -> Tensor:
    # Score by score: with a hundred classes, all of them do not fit into memory on the grid of a CT's own.
    scores_1XYZ = (data.to_original(logits_KXYZ[k : k + 1].float(), case) for k in range(len(logits_KXYZ)))
    if not data.exclusive:
        return torch.cat([each > 0 for each in scores_1XYZ])
    highest = next(scores_1XYZ)
    found_1XYZ = torch.zeros_like(highest, dtype=torch.uint8 if len(logits_KXYZ) <= 256 else torch.int64)
    for k, score in enumerate(scores_1XYZ, start=1):
        # Where preprocessing cropped, all have the same score, and it stays background, which is the first.
        found_1XYZ.masked_fill_(score > highest, k)
        highest = torch.maximum(highest, score)
    return found_1XYZ


def class_masks(labels_LXYZ: Tensor, data: LiveSegmentation) -> Iterator[Tensor]:
    """Yield the mask (X, Y, Z) of each class of labels in either convention; of planes of them, (X, Y)."""
    for k in range(len(data.classes)):
        yield labels_LXYZ[0] == k + 1 if data.exclusive else labels_LXYZ[k] > 0.5
