"""How far the surfaces of what was found and what is there are apart.

Shapes: S = voxels of a surface, X, Y, Z = voxels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def hausdorff_95(found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing) -> float:
    """Return the 95 % Hausdorff distance of two masks in mm.

    NaN where both are empty, the diagonal of the volume where one is.
    """
    if found_XYZ.any() and true_XYZ.any():
        return max(float(np.percentile(each_S, 95)) for each_S in distances(found_XYZ, true_XYZ, spacing_mm))
    if found_XYZ.any() or true_XYZ.any():
        return math.hypot(*(n * mm for n, mm in zip(found_XYZ.shape, spacing_mm, strict=True)))
    return math.nan


def surface_agreement(found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the share of both surfaces of two masks that is within a tolerance of the other.

    NaN where both are empty, 0 where one is.
    """
    if found_XYZ.any() and true_XYZ.any():
        return float((np.concatenate(distances(found_XYZ, true_XYZ, spacing_mm)) <= tolerance_mm).mean())
    return 0.0 if found_XYZ.any() or true_XYZ.any() else math.nan


def distances(one_XYZ: Mask, other_XYZ: Mask, spacing_mm: Spacing) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return for each voxel of a mask's surface how far the other's surface is, in mm: (S,), and the other way round.

    A voxel is of the surface if one of its six neighbours is not in the mask, or lies beyond the volume.
    """
    box = find_objects((one_XYZ | other_XYZ).astype(np.uint8))[0]
    surfaces = []
    for mask_XYZ in (one_XYZ, other_XYZ):
        inside_XYZ = np.pad(mask_XYZ[box], 1)
        surfaces.append(inside_XYZ & ~binary_erosion(inside_XYZ))
    one, other = surfaces
    return (
        distance_transform_edt(~other, sampling=spacing_mm)[one],
        distance_transform_edt(~one, sampling=spacing_mm)[other],
    )
