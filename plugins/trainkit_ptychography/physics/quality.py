"""How near a reconstruction is to a known truth, apart from what no pattern can tell: a shift, and the mean phase.

Shapes: N = scan points, H, W = rows and columns of the object, K, L = those of the true phase, R, C = of the part that
is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SEARCH = ((2.0, 0.5), (0.5, 0.1), (0.1, 0.02))  # half-width and step, in pixels, from coarse to fine
_MOST_BYTES_KEPT = 2**25


class PhaseAgreement(NamedTuple):
    """How near a phase is to the true one.

    Attributes:
        pearson: Pearson's r, which does not see how strong the phase is.
        gain: How strong the phase is, as a share of the true one: the slope of the line through (true, found). With
            half of the phase recovered everywhere, r is 1 and the gain 0.5.
    """

    pearson: float
    gain: float


Box = tuple[tuple[float, float], tuple[float, float]]
"""((first row, last row), (first column, last column)), in pixels."""


def phase_pearson(
    phase_HW: NDArray[np.floating], origin_2: NDArray[np.floating], truth_KL: NDArray[np.floating], box: Box
) -> float:
    """Return Pearson's r between a phase and the true one; see `phase_agreement`."""
    return phase_agreement(phase_HW, origin_2, truth_KL, box).pearson


def phase_agreement(
    phase_HW: NDArray[np.floating], origin_2: NDArray[np.floating], truth_KL: NDArray[np.floating], box: Box
) -> PhaseAgreement:
    """Compare a phase with the true one over a box, once; see `TruthInBox`."""
    return TruthInBox(truth_KL, origin_2, box).agreement(phase_HW)


class TruthInBox:
    """A true phase over a box, with which reconstructions are compared.

    The comparison is made at the shift within ±2 pixels at which both correlate best. The truth is moved by Fourier
    interpolation, so it is taken to be periodic, or to be flat at its edges.

    What does not depend on the reconstruction is kept for the next one: it is nine tenths of the work.

    Args:
        truth_KL: The true phase; its pixel [i, j] is at position (i, j).
        origin_2: Position in the truth's coordinates of a reconstruction's pixel [0, 0].
        box: The box to compare, in the truth's coordinates.
    """

    def __init__(self, truth_KL: NDArray[np.floating], origin_2: NDArray[np.floating], box: Box) -> None:
        self._truth, self._origin_2 = _Interpolation(truth_KL), origin_2
        self._rows_R, self._columns_C = (
            np.arange(int(np.ceil(low - origin)), int(np.floor(high - origin)) + 1)
            for (low, high), origin in zip(box, origin_2, strict=True)
        )
        self._factors: dict[tuple[int, float], NDArray[np.float64]] = {}
        self._powers: dict[tuple[float, float], float] = {}
        self._last: tuple[NDArray[np.float64], PhaseAgreement] | None = None

    def agreement(self, phase_HW: NDArray[np.floating]) -> PhaseAgreement:
        """Compare a reconstruction with the truth.

        Args:
            phase_HW: Its phase in rad.
        """
        found_RC = np.asarray(phase_HW, dtype=np.float64)[np.ix_(self._rows_R, self._columns_C)]
        if self._last is None or not np.array_equal(found_RC, self._last[0]):
            self._last = found_RC, self._best(_without_mean(found_RC))
        return self._last[1]

    def _best(self, part_RC: NDArray[np.float64]) -> PhaseAgreement:
        best, at = PhaseAgreement(-1.0, 0.0), (0.0, 0.0)
        if not part_RC.any():
            return PhaseAgreement(0.0, 0.0)
        length = float(np.sqrt(np.vdot(part_RC, part_RC)))
        for half_width, step in _SEARCH:
            offsets = np.arange(-half_width, half_width + step / 2, step)
            downs, rights = ([round(float(each + offset), 6) for offset in offsets] for each in at)
            # Σ part · (along · across) = Σ along · (part · acrossᵀ), and the mean of the part is 0.
            projected = [part_RC @ self._across(right).T for right in rights]
            for down in downs:
                along_RH = self._along(down)
                for right, projected_RH in zip(rights, projected, strict=True):
                    common, power = float(np.vdot(along_RH, projected_RH)), self._power(down, right)
                    pearson = common / (length * float(np.sqrt(power)))
                    if pearson > best.pearson:
                        best, at = PhaseAgreement(pearson, common / power), (down, right)
        return best

    def _power(self, down: float, right: float) -> float:
        """Return the sum of squares of the truth at a shift, without its mean."""
        if (down, right) not in self._powers:
            truth_RC = _without_mean(self._along(down) @ self._across(right))
            self._powers[down, right] = float(np.vdot(truth_RC, truth_RC))
        return self._powers[down, right]

    def _along(self, down: float) -> NDArray[np.float64]:
        return self._kept((0, down), self._truth.along, self._rows_R + (self._origin_2[0] + down))

    def _across(self, right: float) -> NDArray[np.float64]:
        return self._kept((1, right), self._truth.across, self._columns_C + (self._origin_2[1] + right))

    def _kept(
        self,
        key: tuple[int, float],
        make: Callable[[NDArray[np.floating]], NDArray[np.float64]],
        places: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        if key not in self._factors:
            if sum(each.nbytes for each in self._factors.values()) > _MOST_BYTES_KEPT:
                self._factors.clear()
            self._factors[key] = make(places)
        return self._factors[key]


def truth_at(
    truth_KL: NDArray[np.floating], rows_R: NDArray[np.floating], columns_C: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return a true phase, which is periodic, at any rows and columns, by Fourier interpolation (R, C)."""
    truth = _Interpolation(truth_KL)
    values_RC: NDArray[np.float64] = truth.along(rows_R) @ truth.across(columns_C)
    return values_RC


class _Interpolation:
    """Fourier interpolation of a real, periodic array, along its rows and across them one after the other.

    The product of what both methods return is the array at these rows and columns. So an array at many shifts needs
    one step along the rows for each shift of the rows, and one step across them for each shift of the columns.

    A real array has its spectrum twice, once conjugated, so half of it is enough; and the real part of a product of
    complex matrices is a product of real ones that are twice as long.

    Args:
        array_KL: The array; its pixel [i, j] is at (i, j).
    """

    def __init__(self, array_KL: NDArray[np.floating]) -> None:
        self._shape = array_KL.shape
        spectrum_KH = np.fft.rfft2(np.asarray(array_KL, dtype=np.float64))
        twice_H = np.full(spectrum_KH.shape[1], 2.0)  # each frequency stands for its negative too, but for these:
        twice_H[0] = 1.0
        if self._shape[1] % 2 == 0:
            twice_H[-1] = 1.0
        self._spectrum_KH = spectrum_KH * twice_H

    def along(self, rows_R: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the first factor (R, 2H)."""
        num = self._shape[0]
        waves_RK = np.exp(2j * np.pi * np.outer(rows_R, np.fft.fftfreq(num))) / num
        if num % 2 == 0:  # the highest frequency is its own negative
            waves_RK.imag[:, num // 2] = 0.0
        rows_RH = waves_RK @ self._spectrum_KH
        both: NDArray[np.float64] = np.concatenate([rows_RH.real, rows_RH.imag], axis=1)
        return both

    def across(self, columns_C: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the second factor (2H, C)."""
        num = self._shape[1]
        angles_HC = 2 * np.pi * np.outer(np.arange(num // 2 + 1) / num, columns_C)
        both: NDArray[np.float64] = np.concatenate([np.cos(angles_HC), -np.sin(angles_HC)]) / num
        return both


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
