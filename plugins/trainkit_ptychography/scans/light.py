"""Compares how much light patterns hold, whichever of their pixels were measured.

Shapes: N = patterns, B = those of a piece, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BRIGHT = 5.0  # of the median total
_DIM = 0.05


def light(
    pieces_BYX: Iterable[NDArray[np.float32]], totals_N: NDArray[np.float64], mean_YX: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each pattern's total as if all pixels had been measured in it; 0 where none was.

    A total is divided by the share that the mean pattern has at the pixels that were measured.

    Args:
        pieces_BYX: All patterns in order, in pieces; NaN where a pixel was not measured.
        totals_N: Their totals over what was measured.
        mean_YX: The mean pattern, each pixel over those patterns in which it was measured.
    """
    expected = [np.where(np.isnan(piece_BYX), 0, mean_YX).sum(axis=(1, 2)) for piece_BYX in pieces_BYX]
    share_N = np.concatenate(expected) / mean_YX.sum()
    light_N = np.zeros(len(totals_N))
    np.divide(totals_N, share_N, out=light_N, where=share_N > 0)
    return light_N


class Unusual(NamedTuple):
    """Which patterns hold so little or so much light that they probably do not show the specimen."""

    empty_N: NDArray[np.bool_]
    dim_N: NDArray[np.bool_]
    bright_N: NDArray[np.bool_]

    def in_any_way(self) -> NDArray[np.bool_]:
        """Return which are unusual in any way."""
        return self.empty_N | self.dim_N | self.bright_N


def unusual(light_N: NDArray[np.float64]) -> Unusual:
    """Return which patterns are empty, or much darker or brighter than the median of those that are not empty."""
    empty_N = light_N == 0
    median = 0.0 if empty_N.all() else float(np.median(light_N[~empty_N]))
    return Unusual(empty_N, (light_N < _DIM * median) & ~empty_N, light_N > BRIGHT * median)
