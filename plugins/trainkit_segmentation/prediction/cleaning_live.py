"""Finds the parts of a mask that are removed after a prediction.

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
    parts_XYZ, _ = ndimage.label(mask_XYZ, ndimage.generate_binary_structure(3, 3))
    sizes = np.bincount(parts_XYZ.ravel())
    sizes[0] = 0
    removed = sizes * voxel_ml < cleaning.smallest_ml
    if cleaning.keep_largest:
        removed |= np.arange(len(sizes)) != sizes.argmax()
    removed[0] = False
    found: Array = removed[parts_XYZ]
    return found
