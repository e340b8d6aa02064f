"""Cases that can be trained on: what every segmentation model, loss and metric is given as ``data``.

Shapes: B = patches of a batch, C = channels of an image, K = classes of a target, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class LiveSegmentation:
    """Preprocessed cases.

    A batch of training has ``index`` (B,), ``image`` (B, C, X, Y, Z) float32 of the patch's size, and ``label``:
    where classes exclude each other (B, 1, X, Y, Z) int64, 0 for the background and i + 1 for ``classes[i]``;
    else (B, K, X, Y, Z) float32, 0 or 1. A batch of evaluation is one whole preprocessed volume, B = 1, and has its
    name as ``case``.

    Attributes:
        num_channels: Channels of an image.
        classes: The foreground classes, in the order of the target's values or channels.
        exclusive: Whether a voxel has one class at most: a network then gives ``len(classes) + 1`` scores (softmax),
            else ``len(classes)`` (sigmoid).
        patch_size: Voxels of a training patch along x, y, z of the preprocessed grid.
        steps_per_epoch: Batches of an epoch, on this process.
    """

    num_channels: int
    classes: tuple[str, ...]
    exclusive: bool
    patch_size: tuple[int, int, int]
    steps_per_epoch: int

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield the batches ``start``… of an epoch, a function of (seed, epoch, rank) alone."""
        raise NotImplementedError

    def evaluate(self, split: str) -> Iterator[dict[str, Any]]:
        """Yield each case of a split whole, in alphabetical order."""
        raise NotImplementedError

    def to_original(self, scores_KXYZ: Tensor, case: str) -> Tensor:
        """Resample class scores of a preprocessed volume onto the case's own voxel grid.

        Args:
            scores_KXYZ: Scores on the preprocessed grid, floating point, one channel a network output.
            case: Its name.

        Returns:
            (K, X, Y, Z) on the voxel grid of the case's files, same dtype and device.
        """
        raise NotImplementedError

    def truth(self, case: str) -> Tensor:
        """Return the label on the case's own voxel grid, in the convention of a batch's ``label`` without its B."""
        raise NotImplementedError

    def spacing_mm(self, case: str) -> tuple[float, float, float]:
        """Return the size of a voxel of the case's own grid along its axes."""
        raise NotImplementedError

    def affine(self, case: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the (4, 4) matrix from voxels of the case's own grid to mm (right, anterior, superior)."""
        raise NotImplementedError
