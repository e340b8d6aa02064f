"""Maps of labels: the one that scores make most likely, and the masks of its classes.

Shapes: K = scores (classes, and the background where classes exclude each other), L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def most_likely(scores_K1XYZ: Iterable[Tensor], exclusive: bool) -> Tensor:
    """Return the labels that scores stand for.

    Args:
        scores_K1XYZ: K scores, one at a time: on a CT's own grid, a hundred of them do not fit into memory at once.
        exclusive: Whether classes exclude each other. The first score is then that of the background.

    Returns:
        Where classes exclude each other (1, X, Y, Z), 0 for the background; else (L, X, Y, Z) bool.
    """
    if not exclusive:
        return torch.cat([each > 0 for each in scores_K1XYZ])
    scores = iter(scores_K1XYZ)
    highest = next(scores)
    found_1XYZ = torch.zeros_like(highest, dtype=torch.uint8)
    for k, score in enumerate(scores, start=1):
        if k == 256:
            found_1XYZ = found_1XYZ.long()
        # Where preprocessing cropped, all foreground scores are equal and below the background's.
        found_1XYZ.masked_fill_(score > highest, k)
        highest = torch.maximum(highest, score)
    return found_1XYZ


def class_masks(labels_LXYZ: Tensor, num_classes: int, exclusive: bool) -> Iterator[Tensor]:
    """Yield the mask (X, Y, Z) of each class.

    Args:
        labels_LXYZ: Labels in either form that `most_likely` returns; planes of them, (L, X, Y), give masks (X, Y).
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
    """
    for k in range(num_classes):
        yield labels_LXYZ[0] == k + 1 if exclusive else labels_LXYZ[k] > 0.5
