"""How near a reconstruction is to a known truth, apart from what no pattern can tell: a shift, and the mean phase.

Shapes: N = scan points, H, W = rows and columns of the object, K, L = those of the true phase, R, C = of the part that
is compared.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SEARCH = ((2.0, 0.5), (0.5, 0.1), (0.1, 0.02))  # half-width and step, in pixels, from coarse to fine


class PhaseAgreement(NamedTuple):
    """How near a phase is to the true one.

    Attributes:
        pearson: Pearson's r, which does not see how strong the phase is.
        gain: How strong the phase is, as a share of the true one: the slope of the line through (true, found). With
            half of the phase recovered everywhere, r is 1 and the gain 0.5.
    """

    pearson: float
    gain: float


def phase_pearson(
    phase_HW: NDArray[np.floating],
    origin_2: NDArray[np.floating],
    truth_KL: NDArray[np.floating],
    box: tuple[tuple[float, float], tuple[float, float]],
) -> float:
    """Return Pearson's r between a phase and the true one; see `phase_agreement`."""
    return phase_agreement(phase_HW, origin_2, truth_KL, box).pearson


def phase_agreement(
    phase_HW: NDArray[np.floating],
    origin_2: NDArray[np.floating],
    truth_KL: NDArray[np.floating],
    box: tuple[tuple[float, float], tuple[float, float]],
) -> PhaseAgreement:
    """Compare a phase with the true one over a box, at the shift within ±2 pixels at which they correlate best.

    The truth is moved by Fourier interpolation, so it is taken to be periodic, or to be flat at its edges.

    Args:
        phase_HW: The reconstruction, in rad.
        origin_2: Position in the truth's coordinates of its pixel [0, 0].
        truth_KL: The true phase; its pixel [i, j] is at position (i, j).
        box: ((first row, last row), (first column, last column)) to compare, in the truth's coordinates.
    """
    rows_R, columns_C = (
        np.arange(int(np.ceil(low - origin)), int(np.floor(high - origin)) + 1)
        for (low, high), origin in zip(box, origin_2, strict=True)
    )
    part_RC = _without_mean(np.asarray(phase_HW, dtype=np.float64)[np.ix_(rows_R, columns_C)])
    spectrum_KL = np.fft.fft2(np.asarray(truth_KL, dtype=np.float64))

    def agreement(shift: tuple[float, float]) -> PhaseAgreement:
        down, right = origin_2[0] + shift[0], origin_2[1] + shift[1]
        truth_RC = _without_mean(_interpolated(spectrum_KL, rows_R + down, columns_C + right))
        common, power = float((part_RC * truth_RC).sum()), float((truth_RC**2).sum())
        return PhaseAgreement(common / float(np.sqrt((part_RC**2).sum() * power)), common / power)

    best, at = PhaseAgreement(-1.0, 0.0), (0.0, 0.0)
    if not part_RC.any():
        return PhaseAgreement(0.0, 0.0)
    for half_width, step in _SEARCH:
        around = at
        offsets = np.arange(-half_width, half_width + step / 2, step)
        for down, right in product(offsets, offsets):
            shift = (around[0] + down, around[1] + right)
            if (found := agreement(shift)).pearson > best.pearson:
                best, at = found, shift
    return best


def truth_at(
    truth_KL: NDArray[np.floating], rows_R: NDArray[np.floating], columns_C: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return a true phase, which is periodic, at any rows and columns, by Fourier interpolation (R, C)."""
    return _interpolated(np.fft.fft2(np.asarray(truth_KL, dtype=np.float64)), rows_R, columns_C)


def _interpolated(
    spectrum_KL: NDArray[np.complexfloating], rows_R: NDArray[np.floating], columns_C: NDArray[np.floating]
) -> NDArray[np.float64]:
    waves = [
        np.exp(2j * np.pi * np.outer(places, np.fft.fftfreq(size))) / size
        for places, size in zip((rows_R, columns_C), spectrum_KL.shape, strict=True)
    ]
    values_RC: NDArray[np.float64] = (waves[0] @ spectrum_KL @ waves[1].T).real
    return values_RC


def rebinned(
    stack_SHW: NDArray[np.floating], wanted: int, ends: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.float64]:
    """Return the sums over equal parts of a depth (wanted, H, W).

    Args:
        stack_SHW: Equally thick slices.
        wanted: Number of parts.
        ends: Where the first slice begins and the last one ends, as shares of the depth; outside is nothing.
    """
    num = len(stack_SHW)
    running = np.concatenate([np.zeros_like(stack_SHW[:1], dtype=np.float64), np.cumsum(stack_SHW, 0, np.float64)])
    depths = np.clip((np.linspace(0, num, wanted + 1) - num * ends[0]) / (ends[1] - ends[0]), 0, num)
    below = np.minimum(depths.astype(int), num - 1)
    share = (depths - below)[:, None, None]
    at_depths: NDArray[np.float64] = (1 - share) * running[below] + share * running[below + 1]
    return np.diff(at_depths, axis=0)


def position_rmse(positions_N2: NDArray[np.floating], true_N2: NDArray[np.floating]) -> float:
    """Return the root mean square error of a coordinate, after the mean offset is taken out; in the given unit."""
    error_N2 = np.asarray(positions_N2, dtype=np.float64) - np.asarray(true_N2, dtype=np.float64)
    return float(np.sqrt((_without_mean(error_N2, axis=0) ** 2).mean()))


def _without_mean(array: NDArray[np.float64], axis: int | None = None) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = array - array.mean(axis=axis)
    return centred
