"""Distances between the surfaces of prediction and truth.

Where voxels are ignored, a surface is only where a voxel that counts has a neighbour that counts on the other side: the
edge of what was annotated is the surface of nothing. A distance to a surface that goes on among ignored voxels is taken
to the nearest part of it that counts, so it is at most too long.

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


def hausdorff_95(found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, *, ignored_XYZ: Mask | None = None) -> float:
    """Return the 95 % Hausdorff distance of two masks in mm.

    NaN if neither has a surface, the diagonal of the volume if one has.
    """
    return surface_scores(found_XYZ, true_XYZ, spacing_mm, 0.0, ignored_XYZ)[0]


def surface_agreement(
    found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, tolerance_mm: float, *, ignored_XYZ: Mask | None = None
) -> float:
    """Return the share of the surfaces of two masks that is within a tolerance of the other surface.

    NaN if neither has a surface, 0 if one has.
    """
    return surface_scores(found_XYZ, true_XYZ, spacing_mm, tolerance_mm, ignored_XYZ)[1]


def surface_scores(
    found_XYZ: Mask, true_XYZ: Mask, spacing_mm: Spacing, tolerance_mm: float, ignored_XYZ: Mask | None = None
) -> tuple[float, float]:
    """Return `hausdorff_95` and `surface_agreement` of two masks; distances are measured once."""
    if not (found_XYZ.any() or true_XYZ.any()):
        return math.nan, math.nan
    one, other = surfaces(found_XYZ, true_XYZ, ignored_XYZ)
    if not (one.any() or other.any()):
        return math.nan, math.nan
    if not (one.any() and other.any()):
        return math.hypot(*(n * mm for n, mm in zip(found_XYZ.shape, spacing_mm, strict=True))), 0.0
    distances = surface_distances(one, other, spacing_mm)
    hd95_mm = max(float(np.percentile(each_S, 95)) for each_S in distances)
    return hd95_mm, float((np.concatenate(distances) <= tolerance_mm).mean())


def surfaces(one_XYZ: Mask, other_XYZ: Mask, ignored_XYZ: Mask | None = None) -> tuple[Mask, Mask]:
    """Return the surfaces of two masks, not both empty, in the box around both with a voxel more on each side.

    A voxel is on the surface if one of its six neighbours is outside the mask or outside the volume. Ignored voxels are
    on no surface, and are no neighbours.
    """
    box = find_objects((one_XYZ | other_XYZ).astype(np.uint8))[0]
    box = tuple(slice(max(extent.start - 1, 0), extent.stop + 1) for extent in box)
    found = []
    for mask_XYZ in (one_XYZ, other_XYZ):
        inside_XYZ = np.pad(mask_XYZ[box], 1)
        if ignored_XYZ is None:
            found.append(inside_XYZ & ~binary_erosion(inside_XYZ))
        else:
            free_XYZ = np.pad(ignored_XYZ[box], 1)
            found.append(inside_XYZ & ~free_XYZ & ~binary_erosion(inside_XYZ | free_XYZ))
    return found[0], found[1]


def surface_distances(one: Mask, other: Mask, spacing_mm: Spacing) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances in mm from each voxel of a surface to the other surface, (S,), and vice versa."""
    return (
        distance_transform_edt(~other, sampling=spacing_mm)[one],
        distance_transform_edt(~one, sampling=spacing_mm)[other],
    )
