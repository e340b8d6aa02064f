"""Whether patterns are counts, and how much the roots of few counts, which the amplitude loss compares, lose.

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
_WEAKER = 0.33  # by which the phase is, over the light that roots lose; measured on four simulated scans
_LEAST_MULTIPLE, _LARGEST_MULTIPLE = 3.0, 1e5  # of a unit with fractions, in the brightest pixel
_ROUNDED = 5e-7  # of a value: two values in single precision are as inexact together, or a little less
_MATTERS, _DOUBTED = 0.05, 0.2  # by which the phase is too weak

MORE_THAN_NOISE = 1.3
"""Times the misfit of noise, of which the expected patterns of a simulation have 1.00 ± 0.025."""


class Counts(NamedTuple):
    """What patterns of counts hold.

    Attributes:
        unit: What one electron is in the values of the patterns, which are multiples of it: a detector's gain, or less
            than 1 where frames were averaged.
        per_pattern: Electrons in a pattern, on average.
        outside: Electrons in a pixel outside the bright disc, on average; 0: there is no light.
        lost: Share of the light there that the squared mean of the roots of counts lacks.
    """

    unit: float
    per_pattern: float
    outside: float
    lost: float

    @property
    def weaker(self) -> float:
        """By which share the phase is too weak if roots of counts are compared."""
        return _WEAKER * self.lost

    @property
    def are_few(self) -> bool:
        """Whether they are so few that counts should be compared, and not their roots."""
        return self.weaker >= _MATTERS

    @property
    def are_very_few(self) -> bool:
        """Whether a comparison of roots makes the result doubtful."""
        return self.weaker > _DOUBTED

    def in_words(self) -> str:
        """Return what roots would do to the phase, where counts are few."""
        return (
            f"pixels outside the bright disc hold {self.outside:.2g} counts on average, and roots of so few, which the "
            f"amplitude loss compares, are too small: the phase would be about {100 * self.weaker:.0f} % too weak"
        )


def counts_in(recording: Recording) -> Counts | None:
    """Return what patterns hold if they are counts, or all multiples of a number; None: they are not.

    Args:
        recording: The scan, of which a few dozen patterns are read.
    """
    patterns = recording.intensities_NYX
    points = np.unique(np.linspace(0, len(patterns) - 1, _PATTERNS).astype(int))
    patterns_BYX = np.asarray(patterns[points], dtype=np.float64)
    measured_BYX = np.isfinite(patterns_BYX)
    patterns_BYX = np.where(measured_BYX, patterns_BYX, 0)
    if (unit := _unit(patterns_BYX)) is None:
        return None
    mean_YX = patterns_BYX.sum(axis=0) / unit / np.maximum(measured_BYX.sum(axis=0), 1)
    mask_YX = measured_BYX.any(axis=0)
    if recording.scan.mask_YX is not None:
        mask_YX = mask_YX & recording.scan.mask_YX
    total = float(mean_YX[mask_YX].sum())
    outside_YX = mask_YX & (mean_YX < _BRIGHT * np.percentile(mean_YX[mask_YX], 99)) if mask_YX.any() else mask_YX
    light = float(mean_YX[outside_YX].sum())
    if light <= _LEAST_SHARE * total:
        return Counts(unit, total, 0.0, 0.0)
    lost = float(variance_of_root(mean_YX[outside_YX]).sum()) / light
    return Counts(unit, total, float(mean_YX[outside_YX].mean()), lost)


def _unit(patterns_BYX: NDArray[np.float64]) -> float | None:
    """Return the largest number of which all values are multiples; None: there is none, or some are negative.

    Of values with fractions, it is the smallest one: some pixels see a single electron where electrons are few.
    """
    if not (patterns_BYX >= 0).all():
        return None
    if (patterns_BYX == np.round(patterns_BYX)).all():
        return float(max(int(np.gcd.reduce(patterns_BYX.astype(np.int64), axis=None)), 1))
    unit = float(patterns_BYX[patterns_BYX > 0].min())
    most = float(patterns_BYX.max()) / unit
    if not _LEAST_MULTIPLE <= most <= _LARGEST_MULTIPLE:
        return None
    multiples_BYX = patterns_BYX / unit
    off = float(np.abs(multiples_BYX - np.round(multiples_BYX)).max())
    return unit if off <= _ROUNDED * most else None


def variance_of_root(expected_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of the root of a Poisson-distributed count: almost the count itself where it is few."""
    table, mean = _mean_of_root()
    variance = table - mean**2
    return np.asarray(np.where(expected_P > _FEW, 0.25, np.interp(expected_P, table, variance)))


def misfit_of_noise(expected_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the root of a Poisson-distributed count is from that of the expected one: the mean square."""
    table, mean = _mean_of_root()
    # E(√n − √μ)² = 2μ − 2√μ·E√n; for many counts 1/4, as the variance.
    misfit = 2 * table - 2 * np.sqrt(table) * mean
    return np.asarray(np.where(expected_P > _FEW, 0.25, np.interp(expected_P, table, misfit)))


def _mean_of_root() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return expected counts, and the mean of the root of a count for each."""
    table = _FEW * np.linspace(0, 1, 401) ** 2
    counts_K = np.arange(120)
    logarithms_K = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 120)))])
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.exp(np.where(counts_K > 0, counts_K * np.log(table[:, None]), 0) - table[:, None] - logarithms_K)
    return table, weights @ np.sqrt(counts_K)
