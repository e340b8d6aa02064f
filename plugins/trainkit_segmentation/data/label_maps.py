"""Maps of labels: the one that scores make most likely, and the masks of its classes.

Shapes: K = scores (classes, and the background where classes exclude each other), L = 1 or classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def each_on_own_grid(logits_KXYZ: Tensor, to_own: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield the scores of each class, (1, X, Y, Z) of the case's own voxel grid, one at a time.

    Args:
        logits_KXYZ: Scores on the preprocessed grid.
        to_own: Resamples scores onto the case's own grid.
    """
    for each_XYZ in logits_KXYZ:
        yield to_own(each_XYZ[None].float())


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


def compact(label_codes_XYZ: Tensor, class_table: Tensor | None, num_classes: int) -> Tensor:
    """Return the labels that label codes stand for, in the form of `most_likely`. Ignored voxels are background.

    Args:
        label_codes_XYZ: Label codes of a case.
        class_table: Its class table; None where classes exclude each other.
        num_classes: Number K of classes.
    """
    if class_table is None:
        return label_codes_XYZ[None].masked_fill(label_codes_XYZ[None] > num_classes, 0)
    class_table = class_table[:, :num_classes]
    found_KXYZ = torch.empty((num_classes, *label_codes_XYZ.shape), dtype=torch.bool)
    for x, codes_YZ in enumerate(label_codes_XYZ):  # as numbers of 64 bits, the codes of all planes take much memory
        chosen_KV = class_table.T.bool().index_select(1, codes_YZ.reshape(-1).long())
        found_KXYZ[:, x] = chosen_KV.reshape(-1, *codes_YZ.shape)
    return found_KXYZ


def class_masks(labels_LXYZ: Tensor, num_classes: int, exclusive: bool) -> Iterator[Tensor]:
    """Yield the mask (X, Y, Z) of each class.

    Args:
        labels_LXYZ: Labels in either form that `most_likely` returns; planes of them, (L, X, Y), give masks (X, Y).
        num_classes: Number of foreground classes.
        exclusive: Whether classes exclude each other.
    """
    for k in range(num_classes):
        yield labels_LXYZ[0] == k + 1 if exclusive else labels_LXYZ[k] > 0.5
