"""Finds the voxels near boundaries of labels, some planes at a time.

Shapes: P, U, V = voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.metrics.surfaces import Mask

_MOST_VOXELS = 1 << 22  # in which distances are measured at once: that takes some 30 bytes a voxel


def beside_boundaries(labels_PUV: Array, ignored_PUV: Mask | None = None) -> Mask:
    """Return which voxels have a face in common with a voxel of another label; ignored voxels have no label."""
    beside_PUV: Mask = np.zeros(labels_PUV.shape, dtype=bool)
    for axis in range(3):
        first, second = (
            tuple(slice(begin, stop) if each == axis else slice(None) for each in range(3))
            for begin, stop in ((0, -1), (1, None))
        )
        differs = labels_PUV[first] != labels_PUV[second]
        if ignored_PUV is not None:
            differs &= ~(ignored_PUV[first] | ignored_PUV[second])
        beside_PUV[first] |= differs
        beside_PUV[second] |= differs
    return beside_PUV


def within(marked_PUV: Mask, spacing_mm: Sequence[float], distance_mm: float) -> Mask:
    """Return which voxels have their centre at most a distance away from that of a marked voxel.

    Args:
        marked_PUV: The marked voxels.
        spacing_mm: Size of a voxel along each axis.
        distance_mm: The distance.
    """
    near_PUV: Mask = np.zeros(marked_PUV.shape, dtype=bool)
    edge = math.floor(distance_mm / spacing_mm[0] + 1e-9)  # planes beyond the edge of a part that may be near to it
    planes = max(2 * edge, _MOST_VOXELS // max(1, marked_PUV[0].size), 1)
    for begin in range(0, len(marked_PUV), planes):
        first = max(0, begin - edge)
        part_PUV = marked_PUV[first : begin + planes + edge]
        if part_PUV.any():
            close_PUV = distance_transform_edt(~part_PUV, sampling=tuple(spacing_mm)) <= distance_mm * (1 + 1e-9)
            near_PUV[begin : begin + planes] = close_PUV[begin - first : begin - first + planes]
    return near_PUV
