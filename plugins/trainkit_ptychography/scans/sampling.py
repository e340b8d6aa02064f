"""Figures that tell whether a scan can be reconstructed: steps, the probe's size, where the light falls.

Shapes: N = scan points, Y, X = rows and columns of a pattern or of the probe's array.
Units: pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ASKED = 256  # points whose neighbours are searched
_SAME = 1e-6  # pixels, within which two places are the same


def scanned_area(positions_N2: NDArray[np.float64]) -> float:
    """Return the area of a scan in the unit of its positions squared: its extent and a step more along both axes."""
    distances = neighbour_distances(positions_N2)
    step = float(np.median(distances)) if len(distances) else 0.0
    extent_2 = np.ptp(positions_N2, axis=0)
    return float(np.prod(extent_2 + step)) if np.isfinite(step) and extent_2.min() > 0 else 0.0


def neighbour_distances(positions_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from points to the nearest other place that was visited, for 256 points, evenly spread.

    A second visit to the same place does not count. The distance is infinite if there is no other place.
    """
    asked = np.unique(np.linspace(0, len(positions_N2) - 1, _ASKED).round().astype(np.int64))
    distances = np.full(len(asked), np.inf)
    for place, point in enumerate(asked):
        away_N = np.hypot(*(positions_N2 - positions_N2[point]).T)
        elsewhere = away_N[away_N > _SAME]
        if len(elsewhere):
            distances[place] = elsewhere.min()
    return distances


def probe_diameter(intensity_YX: NDArray[np.floating]) -> float:
    """Return the diameter of the uniform disc that has half of its power in as small a circle as the probe has.

    This is the geometric diameter of a defocused probe, and the weak tails of a focused one hardly change it.

    Args:
        intensity_YX: The probe's intensity, at any place of its array.
    """
    power_YX = np.asarray(intensity_YX, dtype=np.float64)
    rows, columns = (
        np.arange(size, dtype=np.float64) - _circular_centre(power_YX.sum(axis=1 - which))
        for which, size in enumerate(power_YX.shape)
    )
    rows, columns = (
        (each + size / 2) % size - size / 2 for each, size in zip((rows, columns), power_YX.shape, strict=True)
    )
    radius = np.hypot(rows[:, None], columns).ravel()
    order = np.argsort(radius)
    power = np.cumsum(power_YX.ravel()[order])
    half = int(np.searchsorted(power, 0.5 * power[-1]))
    area = half + 0.5  # pixels within the circle of half the power
    return float(2 * np.sqrt(2 * area / np.pi))


class Oversampling(NamedTuple):
    """Two figures that predict whether a scan can be reconstructed.

    Attributes:
        areal: Area of the disc that holds 90 % of the probe's power, over the area of a scan step: how many patterns
            see a place.
        ronchigram_magnification: Detector pixels that an Å of the specimen covers in the pattern of a defocused probe:
            radius of the bright disc over that of the probe.

    Source:
        Gilgenbach, Chen, LeBeau, Microscopy and Microanalysis 30 (2024) 703, ozae055.
    """

    areal: float
    ronchigram_magnification: float


def oversampling(
    intensity_YX: NDArray[np.floating], step: float, pixel_size_angstrom: float, disc_radius: float, shadow: float = 0.0
) -> Oversampling:
    """Return how densely the specimen and the detector are sampled.

    Args:
        intensity_YX: The probe's intensity, centred at (Y//2, X//2).
        step: Distance of scan points in pixels, above 0.
        pixel_size_angstrom: Size of an object pixel.
        disc_radius: Radius of the bright disc in detector pixels.
        shadow: Radius in pixels that the probe has by geometry, which may be larger than its array.
    """
    rows, columns = (np.arange(size) - size // 2 for size in intensity_YX.shape)
    radius = np.hypot(rows[:, None], columns).ravel()
    order = np.argsort(radius, kind="stable")
    power = np.cumsum(intensity_YX.ravel()[order])
    inside = int(np.searchsorted(power, 0.9 * power[-1])) + 1
    of_probe = max(float(np.sqrt(inside / np.pi)), float(np.sqrt(0.9)) * shadow)  # of a circle as large as these pixels
    return Oversampling(np.pi * (of_probe / step) ** 2, disc_radius / (of_probe * pixel_size_angstrom))


def beam_offset(mean_YX: NDArray[np.floating]) -> tuple[float, float]:
    """Return how far the centre of mass of the light is from the zero frequency, at [0, 0]: (rows, columns)."""
    down, right = (_circular_centre(np.asarray(mean_YX, dtype=np.float64).sum(axis=1 - which)) for which in (0, 1))
    half = [size / 2 for size in mean_YX.shape]
    return (down + half[0]) % (2 * half[0]) - half[0], (right + half[1]) % (2 * half[1]) - half[1]


def mirrored_where_hidden(mean_YX: NDArray[np.floating], counts_YX: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return a mean pattern in which pixels that do not count have the value of the opposite frequency.

    A gap through the bright disc would move its centre of mass otherwise. Where that one does not count either, as
    behind a beam stop, it is what pixels that are as far from the zero frequency have, or those a little further out.

    Args:
        mean_YX: The mean pattern, zero frequency at [0, 0].
        counts_YX: Which pixels count; None: all.
    """
    seen_YX: NDArray[np.float64] = np.asarray(mean_YX, dtype=np.float64)
    if counts_YX is None:
        return seen_YX
    opposite = np.ix_(*(-np.arange(size) % size for size in seen_YX.shape))
    known_YX = counts_YX | counts_YX[opposite]
    filled_YX: NDArray[np.float64] = np.where(counts_YX, seen_YX, np.where(known_YX, seen_YX[opposite], 0.0))
    if known_YX.all() or not known_YX.any():
        return filled_YX
    frequencies = [np.fft.fftfreq(size, 1 / size) for size in seen_YX.shape]
    ring_YX = np.hypot(frequencies[0][:, None], frequencies[1][None, :]).round().astype(np.int64)
    light_R = np.bincount(ring_YX[known_YX], filled_YX[known_YX], ring_YX.max() + 1)
    pixels_R = np.bincount(ring_YX[known_YX], minlength=ring_YX.max() + 1)
    rings_K = np.flatnonzero(pixels_R)
    nearest_R = rings_K[np.searchsorted(rings_K, np.arange(len(pixels_R))).clip(max=len(rings_K) - 1)]
    filled_YX[~known_YX] = (light_R[nearest_R] / pixels_R[nearest_R])[ring_YX[~known_YX]]
    return filled_YX


def bright_radius(mean_YX: NDArray[np.floating]) -> float:
    """Return the radius of the disc of direct light: that of a circle as large as what is brighter than half of it."""
    level = float((mean_YX**2).sum() / mean_YX.sum())  # of a disc on a dark ground: its brightness
    return float(np.sqrt((mean_YX > 0.5 * level).sum() / np.pi))


def disc_radius(
    shape: tuple[int, ...], pixel_size_angstrom: float, wavelength_angstrom: float, semiangle_mrad: float
) -> float:
    """Return the radius that an aperture's disc has on the detector: of a circle as large, if it is an ellipse there.

    Args:
        shape: Rows and columns of a pattern. Its pixels are smaller along the longer side, object pixels being square.
        pixel_size_angstrom: Size of an object pixel.
        wavelength_angstrom: The wavelength.
        semiangle_mrad: The aperture's half opening angle.
    """
    across = float(np.sqrt(shape[0] * shape[1]))
    return 1e-3 * semiangle_mrad * pixel_size_angstrom * across / wavelength_angstrom


def edge_share(mean_YX: NDArray[np.floating], counts_YX: NDArray[np.bool_] | None) -> float:
    """Return how bright the detector's outermost pixels are, as a share of the brightness within the bright disc.

    Args:
        mean_YX: The mean pattern, zero frequency at [0, 0].
        counts_YX: Which pixels count; None: all.
    """
    level = float((mean_YX**2).sum() / mean_YX.sum())
    edge_YX = np.zeros(mean_YX.shape, bool)
    rows, columns = (size // 2 for size in mean_YX.shape)  # where the highest frequencies are
    edge_YX[[rows - 1, rows]] = True
    edge_YX[:, [columns - 1, columns]] = True
    if counts_YX is not None:
        edge_YX &= counts_YX
    return float(mean_YX[edge_YX].mean()) / level if edge_YX.any() else 0.0


def _circular_centre(weights: NDArray[np.float64]) -> float:
    """Return the centre of mass of weights on a ring, which has no ends."""
    turns = np.exp(2j * np.pi * np.arange(len(weights)) / len(weights))
    return float(np.angle((weights * turns).sum()) / (2 * np.pi) * len(weights))
