"""Finds the parts of a mask that are removed after a prediction.

A part is a connected component: voxels that share a face, an edge or a corner belong to one part.

Shapes: X, Y, Z = voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from trainkit_segmentation.files.header import Array

if TYPE_CHECKING:
    from trainkit_segmentation.prediction.cleaning import Cleaning


def unlikely_parts(mask_XYZ: Array, cleaning: Cleaning, voxel_ml: float) -> Array:
    """Return the voxels of a mask that are removed.

    Args:
        mask_XYZ: The mask, bool.
        cleaning: What is removed.
        voxel_ml: Volume of a voxel.
    """
    box, parts_XYZ, number = parts_of(mask_XYZ)
    sizes = np.bincount(parts_XYZ.ravel(), minlength=number + 1)
    sizes[0] = 0
    removed = sizes * voxel_ml < cleaning.smallest_ml
    if cleaning.keep_largest:
        removed |= np.arange(len(sizes)) != sizes.argmax()
    removed[0] = False
    found_XYZ: Array = np.zeros_like(mask_XYZ)
    found_XYZ[box] = removed[parts_XYZ]
    return found_XYZ


def parts_of(mask_XYZ: Array) -> tuple[tuple[slice, ...], Array, int]:
    """Find the parts of a mask.

    Args:
        mask_XYZ: The mask, bool.

    Returns:
        The box that holds all parts; the number of each voxel's part in this box, from 1 on, 0 outside of the mask; and
        how many parts there are.
    """
    boxes = ndimage.find_objects(mask_XYZ.view(np.uint8))
    box = boxes[0] if boxes else (slice(0, 0),) * 3
    parts_XYZ, number = ndimage.label(mask_XYZ[box], ndimage.generate_binary_structure(3, 3))
    return box, parts_XYZ, number
