"""The scores of one mask against the truth.

Shapes: X, Y, Z = voxels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from trainkit_segmentation.metrics.surfaces import Mask, Spacing, surface_scores

BRATS_DIAGONAL_MM = 373.13  # of 240 × 240 × 155 voxels of 1 mm

Absent = Literal["brats", "left_out"]


class MaskScores(NamedTuple):
    """The scores of one class in one case.

    Attributes:
        dice: The Dice coefficient; NaN: the class is absent, and left out.
        hd95_mm: The 95 % Hausdorff distance in mm; NaN likewise.
        surface_dice: Share of the surfaces that agree; NaN likewise.
        true_ml: Volume in the truth.
        predicted_ml: Volume in the prediction.
    """

    dice: float
    hd95_mm: float
    surface_dice: float
    true_ml: float
    predicted_ml: float


def mask_scores(
    found_XYZ: Mask,
    true_XYZ: Mask,
    spacing_mm: Spacing,
    voxel_ml: float,
    tolerance_mm: float,
    absent: Absent,
    ignored_XYZ: Mask | None = None,
) -> MaskScores:
    """Return the scores of a mask.

    Args:
        found_XYZ: The prediction.
        true_XYZ: The truth.
        spacing_mm: Size of a voxel along each axis.
        voxel_ml: Volume of a voxel.
        tolerance_mm: Distance up to which surfaces agree.
        absent: How a class counts that is missing from truth or prediction.
        ignored_XYZ: Voxels that do not count, which neither mask has; None: all count.
    """
    found, true = int(np.count_nonzero(found_XYZ)), int(np.count_nonzero(true_XYZ))
    volumes = true * voxel_ml, found * voxel_ml
    if found and true:
        both = int(np.count_nonzero(found_XYZ & true_XYZ))
        hd95_mm, agreement = surface_scores(found_XYZ, true_XYZ, spacing_mm, tolerance_mm, ignored_XYZ)
        return MaskScores(2 * both / (found + true), hd95_mm, agreement, *volumes)
    if found or true:
        diagonal_mm = math.hypot(*(n * mm for n, mm in zip(true_XYZ.shape, spacing_mm, strict=True)))
        return MaskScores(0.0, BRATS_DIAGONAL_MM if absent == "brats" else diagonal_mm, 0.0, *volumes)
    scores = (1.0, 0.0, 1.0) if absent == "brats" else (math.nan, math.nan, math.nan)
    return MaskScores(*scores, *volumes)
