"""By how much columns of a reconstructed specimen lean against the beam.

Shapes: S = slices, P = pairs of neighbouring slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SEARCH = ((3.0, 0.25), (0.25, 0.05), (0.05, 0.01))  # how far around a place, and how finely, in pixels
_ALIKE = 0.5  # correlation from which two slices are taken to show the same columns


class Lean(NamedTuple):
    """By how much columns lean.

    Attributes:
        mrad_2: Along rows and columns: with depth, they move towards larger ones by the tangent of it.
        agreeing: Share of the pairs of neighbouring slices that lean by about as much.
    """

    mrad_2: tuple[float, float]
    agreeing: float


def lean(phase_SHW: NDArray[np.floating], pixel_size_angstrom: float, spacing_angstrom: float) -> Lean | None:
    """Return by how much columns lean; None: slices show nothing in common.

    Each slice is held against the next one. It is the median over the pairs, because columns end at a boundary between
    grains, and what lies behind it is displaced by chance.

    Args:
        phase_SHW: Phase of the slices, in the order of the beam, where they are seen well.
        pixel_size_angstrom: Size of a pixel.
        spacing_angstrom: From one slice to the next.
    """
    window_HW = np.hanning(phase_SHW.shape[1] + 2)[1:-1, None] * np.hanning(phase_SHW.shape[2] + 2)[1:-1]
    means_S = (phase_SHW * window_HW).sum(axis=(1, 2)) / window_HW.sum()
    spectra_SHW = np.fft.fft2((phase_SHW - means_S[:, None, None]) * window_HW)
    powers_S = np.square(np.abs(spectra_SHW)).sum(axis=(1, 2))
    found = []
    for one in range(len(phase_SHW) - 1):
        cross_HW = spectra_SHW[one].conj() * spectra_SHW[one + 1]
        shift_2, height = _shift(cross_HW)
        if height > _ALIKE * np.sqrt(powers_S[one] * powers_S[one + 1]):
            found.append(shift_2)
    if len(found) < max(2, 0.5 * (len(phase_SHW) - 1)):
        return None
    mrad_P2 = 1e3 * np.arctan(np.array(found) * pixel_size_angstrom / spacing_angstrom)
    median_2 = np.median(mrad_P2, axis=0)
    near_P = np.hypot(*(mrad_P2 - median_2).T) <= 0.5 * np.hypot(*median_2)
    return Lean((float(median_2[0]), float(median_2[1])), float(near_P.mean()))


def _shift(cross_HW: NDArray[np.complexfloating]) -> tuple[NDArray[np.float64], float]:
    """Return the displacement in pixels at which two images correlate best, and how well, from their cross spectrum."""
    row_H, column_W = (np.fft.fftfreq(size) for size in cross_HW.shape)
    place_2, height = np.zeros(2), -np.inf
    for reach, step in _SEARCH:
        around = np.arange(-reach, reach + step / 2, step)
        rows_AH, columns_AW = (
            np.exp(2j * np.pi * (at + around)[:, None] * frequency)
            for at, frequency in zip(place_2, (row_H, column_W), strict=True)
        )
        values_AA = (rows_AH @ cross_HW @ columns_AW.T).real
        row, column = np.unravel_index(int(values_AA.argmax()), values_AA.shape)
        place_2, height = place_2 + np.array([around[row], around[column]]), float(values_AA[row, column])
    return place_2, height
