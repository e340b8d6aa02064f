"""Chooses which parts of a class's masks are removed after a prediction, by the Dice of held-out cases.

Shapes: P = parts, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_segmentation.metrics.surfaces import Mask
from trainkit_segmentation.prediction.cleaning import Cleaning
from trainkit_segmentation.prediction.cleaning_live import parts_of

SMALLEST_ML = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""The smallest volumes that are tried."""

_LEAST_GAIN = 1e-6  # of the mean Dice: less is rounding


NOTHING = Cleaning()
CANDIDATES = (*(Cleaning(smallest_ml=each) for each in SMALLEST_ML), Cleaning(keep_largest=True))


class HeldOutMask(NamedTuple):
    """The numbers of voxels of a held-out case from which the Dice after a removal of parts follows.

    Attributes:
        voxels_P: Number of voxels of each predicted part.
        counted_P: Number of these that are not ignored.
        overlap_P: Number of these that are in the truth.
        true: Number of voxels in the truth.
        voxel_ml: Volume of a voxel.
    """

    voxels_P: NDArray[np.int64]
    counted_P: NDArray[np.int64]
    overlap_P: NDArray[np.int64]
    true: int
    voxel_ml: float

    def dice(self, removal: Cleaning) -> float:
        """Return the Dice after a removal; 1 if the class is then in neither truth nor prediction."""
        kept_P = self.voxels_P * self.voxel_ml >= removal.smallest_ml
        if removal.keep_largest and len(kept_P):
            kept_P &= np.arange(len(kept_P)) == self.voxels_P.argmax()
        both, found = int(self.overlap_P[kept_P].sum()), int(self.counted_P[kept_P].sum())
        return 2 * both / (found + self.true) if found + self.true else 1.0


class Choice(NamedTuple):
    """The post-processing of a class.

    Attributes:
        removal: What is removed.
        before: Mean Dice of the held-out cases without it.
        after: Mean Dice with it.
    """

    removal: Cleaning
    before: float
    after: float


def held_out_mask(found_XYZ: Mask, true_XYZ: Mask, voxel_ml: float, ignored_XYZ: Mask | None = None) -> HeldOutMask:
    """Return what `choose` has to know of a case.

    Args:
        found_XYZ: The whole prediction: what is a part of it does not depend on what was annotated.
        true_XYZ: The truth, without ignored voxels.
        voxel_ml: Volume of a voxel.
        ignored_XYZ: Voxels that do not count; None: all count.
    """
    box, parts_XYZ, number = parts_of(found_XYZ)
    counted = parts_XYZ if ignored_XYZ is None else parts_XYZ[~ignored_XYZ[box]]
    voxels, counted, overlap = (
        np.bincount(each.ravel(), minlength=number + 1)[1:].astype(np.int64)
        for each in (parts_XYZ, counted, parts_XYZ[true_XYZ[box]])
    )
    return HeldOutMask(voxels, counted, overlap, int(np.count_nonzero(true_XYZ)), voxel_ml)


def choose(cases: Sequence[HeldOutMask]) -> Choice:
    """Return the post-processing with the highest mean Dice; nothing is removed unless that improves it.

    Of several with the same mean, the one that removes least is taken: volumes are tried from the smallest, and the
    largest part alone comes last. The result does not depend on the order of the cases.

    Args:
        cases: The held-out cases; at least one.
    """
    before = best = _mean_dice(cases, NOTHING)
    chosen = NOTHING
    for removal in CANDIDATES:
        mean = _mean_dice(cases, removal)
        if mean > best + _LEAST_GAIN:
            chosen, best = removal, mean
    return Choice(chosen, before, best)


def _mean_dice(cases: Sequence[HeldOutMask], removal: Cleaning) -> float:
    return fsum(each.dice(removal) for each in cases) / len(cases)  # exact, so the same in any order
