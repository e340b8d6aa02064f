"""Which points of a scan are neighbours, whatever its shape.

Shapes: N = scan points, B = those of a part of the scan, C = those that may be near one of the part, K = those that
are near one, P = pairs of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_NEAREST = 16  # points among which the neighbours of one are
_OF_A_PART = 128  # at most, and twice those that are near at least: this many take about the least time
_DISTANCES = 2**20  # that are computed at a time
_CIRCLE = 0.98  # of the radius: points of a raster are where they should be but for rounding


def neighbours(positions_N2: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return pairs of points (P, 2), smaller numbers first, with no third point inside the circle whose ends they are.

    In a raster these are neighbours along both axes and, since a corner on the circle is not inside, along diagonals.

    Example:
        >>> neighbours(np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]])).tolist()
        [[0, 1], [1, 2]]

    Source:
        Gabriel, Sokal, Systematic Zoology 18 (1969) 259.
    """
    found = []
    order_N = np.argsort(positions_N2[:, _longer(positions_N2)])
    along_N2 = positions_N2[order_N]
    for point_B, near_BK in _nearest(along_N2, min(_NEAREST + 1, len(along_N2))):
        # A point inside the circle is nearer to either end than the other end is, so it is among those that are near.
        near_BK2 = along_N2[near_BK]
        middle_BK2 = 0.5 * (along_N2[point_B, None] + near_BK2)
        least_BK = _squared(_CIRCLE * (near_BK2 - middle_BK2))
        is_empty_BK = near_BK != point_B[:, None]
        for third in range(near_BK.shape[1]):
            is_empty_BK &= _squared(near_BK2[:, third : third + 1] - middle_BK2) >= least_BK
        place_P, near_P = np.nonzero(is_empty_BK)[0], near_BK[is_empty_BK]
        found.append(order_N[np.stack([point_B[place_P], near_P], axis=1)])
    found_P2: NDArray[np.int64] = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return found_P2


def _nearest(along_N2: NDArray[np.float64], num: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield some points (B,) at a time, and for each itself and those that are nearest to it (B, num), in any order.

    scipy's trees do the same, and their import takes 0.2 s and 30 MB of memory.

    Args:
        along_N2: Where points are, in the order of their places along the longer side of the scan.
        num: How many.
    """
    every_2N, longer = along_N2.T.copy(), _longer(along_N2)
    for point_B in _parts(along_N2, np.arange(len(along_N2))):
        # Those that are nearest within the part are at least as far away as those that are nearest of all.
        own_2B = every_2N[:, point_B]
        radius = np.sqrt(np.partition(_all_squared(own_2B, own_2B), num - 1, axis=1)[:, num - 1].max())
        low_2, high_2 = own_2B.min(axis=1) - radius, own_2B.max(axis=1) + radius
        first = np.searchsorted(every_2N[longer], low_2[longer], side="left")
        end = np.searchsorted(every_2N[longer], high_2[longer], side="right")
        across_C = every_2N[1 - longer, first:end]
        candidate_C = first + np.flatnonzero((across_C >= low_2[1 - longer]) & (across_C <= high_2[1 - longer]))
        at_once = max(1, _DISTANCES // len(candidate_C))
        for start in range(0, len(point_B), at_once):
            those_B = point_B[start : start + at_once]
            squared_BC = _all_squared(every_2N[:, those_B], every_2N[:, candidate_C])
            yield those_B, candidate_C[np.argpartition(squared_BC, num - 1, axis=1)[:, :num]]


def _parts(positions_N2: NDArray[np.float64], point_B: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield points that lie together: these, or parts of each half of them."""
    if len(point_B) <= _OF_A_PART:
        yield point_B
        return
    middle = len(point_B) // 2
    order_B = np.argpartition(positions_N2[point_B, _longer(positions_N2[point_B])], middle)
    yield from _parts(positions_N2, point_B[order_B[:middle]])
    yield from _parts(positions_N2, point_B[order_B[middle:]])


def _longer(positions_N2: NDArray[np.float64]) -> int:
    """Return along which axis points lie further apart."""
    return int(np.ptp(positions_N2, axis=0).argmax())


def _squared(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared lengths of vectors (..., 2)."""
    lengths: NDArray[np.float64] = vectors[..., 0] ** 2 + vectors[..., 1] ** 2
    return lengths


def _all_squared(one_2B: NDArray[np.float64], other_2C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distances (B, C) of all points to all others."""
    squared_BC: NDArray[np.float64] = np.square(one_2B[0, :, None] - other_2C[0])
    right_BC = one_2B[1, :, None] - other_2C[1]
    right_BC *= right_BC
    squared_BC += right_BC
    return squared_BC
