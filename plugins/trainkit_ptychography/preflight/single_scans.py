"""Takes joined scans apart, to look at each of them alone.

Shapes: N = scan points, B = some of them, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.scan import Recording

_MOST_VISITS = 4


class _Some:
    """Some patterns of many, which are read when they are asked for."""

    def __init__(self, patterns: Patterns, points_N: NDArray[np.int64]) -> None:
        self._patterns, self._points_N = patterns, points_N
        self.shape: tuple[int, ...] = (len(points_N), *patterns.shape[1:])

    def __len__(self) -> int:
        return len(self._points_N)

    def __getitem__(self, points: Any, /) -> NDArray[np.float32]:
        return self._patterns[self._points_N[points]]


def subset(recording: Recording, points_N: NDArray[np.int64]) -> Recording:
    """Return some of the patterns as a recording of their own."""
    return Recording(_Some(recording.intensities_NYX, points_N), recording.scan.some(points_N))


def one_scan(recording: Recording, number: int) -> Recording:
    """Return one of the scans that were joined."""
    scan_N = recording.scan.scan_N
    assert scan_N is not None
    return subset(recording, np.flatnonzero(scan_N == number))


def visits(positions_N2: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return how often each point's place had been scanned before it (N,); None: not all places equally often.

    Example:
        >>> visits(np.array([[0.0, 0], [1, 0], [0, 0], [1, 0]])).tolist()
        [0, 0, 1, 1]
    """
    _, place_N, times = np.unique(positions_N2.round(6), axis=0, return_inverse=True, return_counts=True)
    if times.min() != times.max() or not 1 < times[0] <= _MOST_VISITS:
        return None
    order = np.argsort(place_N.ravel(), kind="stable")
    visit_N = np.empty(len(positions_N2), np.int64)
    visit_N[order] = np.tile(np.arange(times[0]), len(times))
    return visit_N
