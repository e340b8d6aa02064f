"""How much the square root of a count, which the amplitude loss compares, loses where counts are few.

Shapes: K = counts, P = expected counts, B = patterns that are looked at, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.scan import Recording

_PATTERNS = 64
_BRIGHT = 0.1  # of the brightest pixels, above which a pixel is one of the bright disc
_LEAST_SHARE = 2e-3  # of the light outside it, below which there is nothing to lose
_FEW = 20.0  # expected counts, above which the variance of a root is 1/4


class FewCounts(NamedTuple):
    """What is outside the bright disc.

    Attributes:
        mean: Counts in a pixel there, on average.
        lost: Share of the light there that the squared mean of the roots of counts lacks.
    """

    mean: float
    lost: float


def few_counts(recording: Recording) -> FewCounts | None:
    """Return what roots lose outside the bright disc; None: the patterns are no counts, or there is no light outside.

    Args:
        recording: The scan, of which a few dozen patterns are read.
    """
    patterns = recording.intensities_NYX
    points = np.unique(np.linspace(0, len(patterns) - 1, _PATTERNS).astype(int))
    patterns_BYX = np.asarray(patterns[points], dtype=np.float64)
    measured_BYX = np.isfinite(patterns_BYX)
    patterns_BYX = np.where(measured_BYX, patterns_BYX, 0)
    if not (patterns_BYX >= 0).all() or not (patterns_BYX == np.round(patterns_BYX)).all():
        return None
    unit = int(np.gcd.reduce(patterns_BYX.astype(np.int64), axis=None))  # of one electron, where a detector has a gain
    patterns_BYX /= max(unit, 1)
    mean_YX = patterns_BYX.sum(axis=0) / np.maximum(measured_BYX.sum(axis=0), 1)
    mask_YX = measured_BYX.any(axis=0)
    if recording.scan.mask_YX is not None:
        mask_YX = mask_YX & recording.scan.mask_YX
    outside_YX = mask_YX & (mean_YX < _BRIGHT * np.percentile(mean_YX[mask_YX], 99)) if mask_YX.any() else mask_YX
    light = float(mean_YX[outside_YX].sum())
    if light <= _LEAST_SHARE * float(mean_YX[mask_YX].sum()):
        return None
    return FewCounts(float(mean_YX[outside_YX].mean()), float(variance_of_root(mean_YX[outside_YX]).sum()) / light)


def variance_of_root(expected_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of the root of a Poisson-distributed count: almost the count itself where it is few."""
    table = np.linspace(0, _FEW, 401)
    counts_K = np.arange(120)
    logarithms_K = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 120)))])
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.exp(np.where(counts_K > 0, counts_K * np.log(table[:, None]), 0) - table[:, None] - logarithms_K)
    variance = table - (weights @ np.sqrt(counts_K)) ** 2
    return np.asarray(np.where(expected_P > _FEW, 0.25, np.interp(expected_P, table, variance)))
