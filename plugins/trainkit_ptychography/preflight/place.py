"""Finds out where in a scan there is a specimen, if its middle shows vacuum.

Shapes: K = patterns that are looked at, S = their pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.scan import Recording

_LOOKED_AT, _PIECE = 144, 16
_FEWEST = 25
_TOGETHER = 9  # neighbours, of which the median counts: a single bad frame is no specimen
_SURE = 6.0  # standard deviations of such a median, which are 1.25 times those of a mean


def place_of_specimen(recording: Recording) -> NDArray[np.float64] | None:
    """Return the place (row, column), in pixels, about which patterns differ most from the mean of all.

    Args:
        recording: The whole scan, of which a few dozen patterns are read.

    Returns:
        The place; None: patterns differ from the mean as much everywhere.
    """
    patterns, scan = recording
    some_K = np.unique(np.linspace(0, len(patterns) - 1, _LOOKED_AT).round().astype(np.int64))
    if len(some_K) < _FEWEST:
        return None
    read = [
        np.nan_to_num(np.asarray(patterns[piece], np.float32))
        for piece in np.split(some_K, np.arange(_PIECE, len(some_K), _PIECE))
    ]
    roots_KS = np.sqrt(np.concatenate(read).clip(min=0)).reshape(len(some_K), -1)
    if scan.mask_YX is not None:
        roots_KS = roots_KS[:, scan.mask_YX.ravel()]
    power_K = np.square(roots_KS).sum(axis=1)
    lit_K = power_K > 0.5 * np.median(power_K)
    some_K, roots_KS = some_K[lit_K], roots_KS[lit_K] / np.sqrt(power_K[lit_K, None])
    if len(some_K) < _FEWEST:
        return None
    differs_K = np.square(roots_KS - roots_KS.mean(axis=0)).sum(axis=1, dtype=np.float64)
    at_K2 = scan.positions_N2[some_K]
    near_KT = np.array([np.argsort(np.hypot(*(at_K2 - each).T), kind="stable")[:_TOGETHER] for each in at_K2])
    together_K = np.median(differs_K[near_KT], axis=1)
    middle = float(np.median(differs_K))
    spread = 1.25 * 1.48 * float(np.median(np.abs(differs_K - middle))) / _TOGETHER**0.5
    best = int(together_K.argmax())
    if together_K[best] - middle <= _SURE * spread:
        return None
    place_2: NDArray[np.float64] = at_K2[near_KT[best]].mean(axis=0)
    return place_2
