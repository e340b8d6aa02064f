"""Which points of a scan are neighbours, whatever its shape.

Shapes: N = scan points, K = those that are near one, B = some of the points, P = pairs of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEAREST = 16  # points among which the neighbours of one are
_FEW = 2048  # of which all distances take less time than the import of scipy's trees, 0.2 s
_AT_ONCE = 256
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
    near_NK = _nearest(positions_N2, min(_NEAREST + 1, len(positions_N2)))
    # A point inside the circle is nearer to either end than the other end is, so it is among those that are near.
    near_NK2 = positions_N2[near_NK]
    middle_NK2 = 0.5 * (positions_N2[:, None] + near_NK2)
    least_NK = _squared(_CIRCLE * (near_NK2 - middle_NK2))
    is_empty_NK = near_NK != np.arange(len(near_NK))[:, None]
    for third in range(near_NK.shape[1]):
        is_empty_NK &= _squared(near_NK2[:, third : third + 1] - middle_NK2) >= least_NK
    one_P, other_P = np.nonzero(is_empty_NK)[0], near_NK[is_empty_NK]
    found_P2: NDArray[np.int64] = np.unique(np.sort(np.stack([one_P, other_P], axis=1), axis=1), axis=0)
    return found_P2


def _nearest(positions_N2: NDArray[np.float64], num: int) -> NDArray[np.int64]:
    """Return for each point itself and those that are nearest to it (N, num), in any order."""
    if len(positions_N2) > _FEW:
        from scipy.spatial import cKDTree  # not at the start of every run

        near_NK: NDArray[np.int64] = cKDTree(positions_N2).query(positions_N2, k=num)[1]
        return near_NK
    some = []
    for start in range(0, len(positions_N2), _AT_ONCE):
        squared_BN = sum((at_N[start : start + _AT_ONCE, None] - at_N) ** 2 for at_N in positions_N2.T.copy())
        some.append(np.argpartition(squared_BN, num - 1, axis=1)[:, :num])
    return np.concatenate(some)


def _squared(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared lengths of vectors (..., 2)."""
    lengths: NDArray[np.float64] = vectors[..., 0] ** 2 + vectors[..., 1] ** 2
    return lengths
