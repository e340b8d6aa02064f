"""Distances between the surfaces of prediction and truth.

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

    NaN if both are empty, the diagonal of the volume if one is.
    """
    if found_XYZ.any() and true_XYZ.any():
        return surface_scores(found_XYZ, true_XYZ, spacing_mm, 0.0)[0]
    if found_XYZ.any() or true_XYZ.any():
        return math.hypot(*(n * mm for n, mm in zip(found_XYZ.shape, spacing_mm, strict=True)))
    return math.nan


def surface_agreement(found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the share of the surfaces of two masks that is within a tolerance of the other surface.

    NaN if both are empty, 0 if one is.
    """
    if found_XYZ.any() and true_XYZ.any():
        return surface_scores(found_XYZ, true_XYZ, spacing_mm, tolerance_mm)[1]
    return 0.0 if found_XYZ.any() or true_XYZ.any() else math.nan


def surface_scores(found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, tolerance_mm: float) -> tuple[float, float]:
    """Return `hausdorff_95` and `surface_agreement` of two masks that are not empty; distances are measured once."""
    distances = surface_distances(found_XYZ, true_XYZ, spacing_mm)
    hd95_mm = max(float(np.percentile(each_S, 95)) for each_S in distances)
    return hd95_mm, float((np.concatenate(distances) <= tolerance_mm).mean())


def surface_distances(one_XYZ: Mask, other_XYZ: Mask, spacing_mm: Spacing) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances in mm from each surface voxel of a mask to the other's surface, (S,), and vice versa.

    A voxel is on the surface if one of its six neighbours is outside the mask or outside the volume.
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
