"""Which points of a scan are neighbours, whatever its shape.

Shapes: N = scan points, P = pairs of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEAREST = 16  # points among which the neighbours of one are
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
    from scipy.spatial import cKDTree  # not at the start of every run

    tree = cKDTree(positions_N2)
    near_NK = tree.query(positions_N2, k=min(_NEAREST + 1, len(positions_N2)))[1]
    pairs_P2 = np.stack([np.repeat(np.arange(len(near_NK)), near_NK.shape[1]), near_NK.ravel()], axis=1)
    pairs_P2 = np.unique(np.sort(pairs_P2[pairs_P2[:, 0] != pairs_P2[:, 1]], axis=1), axis=0)
    ends_P22 = positions_N2[pairs_P2]
    radius_P = 0.5 * np.hypot(*(ends_P22[:, 0] - ends_P22[:, 1]).T)
    found_P2: NDArray[np.int64] = pairs_P2[tree.query(ends_P22.mean(axis=1))[0] >= _CIRCLE * radius_P]
    return found_P2
