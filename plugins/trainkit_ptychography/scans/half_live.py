"""Halves of a scan's evidence: every second point, or every second count.

Shapes: N = scan points, B = points that are asked for, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.scan import Scan

_LEVELS = 16  # of a Hilbert curve: it passes through 2^16 × 2^16 cells
_COIN = 0xC01  # keeps these draws apart from others of the same seed
_LOOKED_AT = 64  # patterns in which a common divisor of the values is looked for


def alternating(positions_N2: NDArray[np.float64], scan_N: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return 0 or 1 for each point: they alternate along a Hilbert curve through all points of a scan.

    Neighbours on the curve are neighbours in the plane, so both halves cover every place equally well. On a square
    grid of 2, 4, 8, … points along each side they are the fields of a chessboard.

    Args:
        positions_N2: The points.
        scan_N: Which of several scans each belongs to; None: there is one. Each scan is halved by itself: scans of the
            same places would otherwise become the halves.
    """
    if scan_N is not None:
        halves_N = np.empty(len(positions_N2), dtype=np.int64)
        for each in np.unique(scan_N):
            halves_N[scan_N == each] = alternating(positions_N2[scan_N == each])
        return halves_N
    low_2, high_2 = positions_N2.min(axis=0), positions_N2.max(axis=0)
    largest = 2**_LEVELS - 1
    cells_N2 = ((positions_N2 - low_2) / np.maximum(high_2 - low_2, 1e-300).max() * largest).astype(np.int64)
    order = np.argsort(_along_hilbert_curve(cells_N2), kind="stable")
    halves_N = np.empty(len(order), dtype=np.int64)
    halves_N[order] = np.arange(len(order)) % 2
    return halves_N


def _along_hilbert_curve(cells_N2: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how far along the curve each cell is.

    Source:
        Warren, Hacker's Delight (2nd ed., 2013), section 16-1.
    """
    x_N, y_N = cells_N2[:, 0].copy(), cells_N2[:, 1].copy()
    along_N = np.zeros(len(cells_N2), dtype=np.int64)
    for level in reversed(range(_LEVELS)):
        right_N, upper_N = (x_N >> level) & 1, (y_N >> level) & 1
        along_N += (3 * right_N ^ upper_N) << (2 * level)
        rest = 2**level - 1
        x_N, y_N = x_N & rest, y_N & rest
        turned_N, flipped_N = upper_N == 0, (upper_N == 0) & (right_N == 1)
        x_N[flipped_N], y_N[flipped_N] = rest - x_N[flipped_N], rest - y_N[flipped_N]
        x_N[turned_N], y_N[turned_N] = y_N[turned_N], x_N[turned_N].copy()
    return along_N


class HalfOfCounts:
    """`Patterns` of which every count falls to one of two halves by the toss of a coin.

    What a pattern gives depends on the seed and its number alone, so both halves together are the whole, however they
    are read.

    Args:
        patterns: The patterns, which must be counts; NaN where a pixel was not measured.
        scan: What is known of them.
        part: 1 or 2.
        seed: The same for both halves.

    Raises:
        DataError: The patterns are no counts, as far as the first ones tell.
    """

    def __init__(self, patterns: Patterns, scan: Scan, part: int, seed: int) -> None:
        self._patterns, self._scan, self._part, self._seed = patterns, scan, part, seed
        few_BYX = np.nan_to_num(patterns[slice(0, min(len(patterns), _LOOKED_AT))])
        self._check(few_BYX, np.arange(len(few_BYX)))
        unit = int(np.gcd.reduce(few_BYX.astype(np.int64), axis=None))
        if unit > 1:
            raise DataError(
                f"{scan.source}: all values are multiples of {unit}, so they are no counts of single particles, and "
                'cannot be halved; use "points" instead'
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, Y, X)."""
        return self._patterns.shape

    def __len__(self) -> int:
        return len(self._patterns)

    def __getitem__(self, points: Any, /) -> NDArray[np.float32]:
        whole_BYX = self._patterns[points]
        numbers_B = np.arange(len(self))[points]
        missing_BYX = np.isnan(whole_BYX)
        counts_BYX = np.where(missing_BYX, 0, whole_BYX)
        self._check(counts_BYX, numbers_B)
        half_BYX = np.empty_like(whole_BYX)
        for place, number in enumerate(numbers_B.tolist()):
            coins = np.random.default_rng((_COIN, self._seed, number))
            first_YX = coins.binomial(counts_BYX[place].astype(np.int64), 0.5)
            half_BYX[place] = first_YX if self._part == 1 else counts_BYX[place] - first_YX
        half_BYX[missing_BYX] = np.nan
        return half_BYX

    def _check(self, counts_BYX: NDArray[np.float32], numbers_B: NDArray[np.int64]) -> None:
        wrong_B = ((counts_BYX < 0) | (counts_BYX != np.rint(counts_BYX))).any(axis=(1, 2))
        if wrong_B.any():
            place = int(wrong_B.argmax())
            wrong = counts_BYX[place][(counts_BYX[place] < 0) | (counts_BYX[place] != np.rint(counts_BYX[place]))]
            raise DataError(
                f"{self._scan.source}: the values are no counts, so they cannot be halved: pattern "
                f"{self._scan.number(int(numbers_B[place]))} holds {wrong.flat[0]:.6g} as it is used (after what "
                'prepare does); use "points" instead'
            )
