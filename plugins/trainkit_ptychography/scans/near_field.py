"""Recognises patterns that were taken so near to the specimen that they are images of it.

In the far field, light keeps its place on the detector while the specimen is scanned. Near the specimen (in-line
holography, Fresnel ptychography), a pattern is a shadow image: it fills the detector, and it moves along with the scan.
A defocused beam far away does the same within its own disc, which does not fill the detector.

Shapes: N = scan points, B = pairs of points, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.sampling import edge_share

_PAIRS = 32
_FILLS = 0.5  # the detector's edge, against the brightest light
_ALIKE = 0.3  # correlation of a pattern with its neighbour, after it was moved
_APART = 1 / 8  # of a pattern: so far that errors of positions do not matter, so near that patterns are alike
_PIXELS = 1.5  # by which the motion may differ from that of the scan


def near_field(
    patterns: Patterns,
    positions_N2: NDArray[np.float64],
    mask_YX: NDArray[np.bool_] | None,
    detector_pixels: float | None = None,
) -> str | None:
    """Return why these look like near-field patterns; None: they do not.

    Args:
        patterns: The patterns; a few dozen are read.
        positions_N2: Where they were taken, in any unit.
        mask_YX: Which pixels count; None: all.
        detector_pixels: Width of the far field's probe array in pixels of the detector, λ · distance / pixel², if that
            is known. Where it is above 1, a probe that fills its array covers several detector pixels.
    """
    if len(patterns) < 8 or min(patterns.shape[1:]) < 16 or not np.isfinite(positions_N2).all():
        return None
    pairs = _Pairs.read(patterns, positions_N2)
    if pairs is None or edge_share(pairs.mean_YX, mask_YX) < _FILLS:
        return None
    follow = pairs.motion(mask_YX) is not None
    if not follow and not (detector_pixels is not None and detector_pixels > 1):
        return None
    signs = ["light fills the detector to its edge"]
    if follow:
        signs.append("neighbouring patterns are shifted copies of each other, and the shifts follow the scan")
    if detector_pixels is not None and detector_pixels > 1:
        signs.append(f"λ · distance is {detector_pixels:.3g} times a detector pixel squared (below 1 in the far field)")
    return (
        f"these look like near-field patterns ({'; '.join(signs)}), but they are taken as patterns of the far field, "
        "Fourier transforms of the exit wave, and a reconstruction would be wrong. If they are images of the specimen, "
        'say so in [data]: detector_propagation = { use = "near_field" }, with focus_distance_mm = … in it (from the '
        'focus to the specimen) for a diverging beam; and begin with [model] probe = { use = "mean_pattern" }'
    )


class Motion(NamedTuple):
    """How images move along with a scan.

    Attributes:
        matrix_22: A step (row, column) @ matrix is by how many pixels an image moves.
        num_pairs: Pairs of patterns that show it.
    """

    matrix_22: NDArray[np.floating]
    num_pairs: int


def motion_of_images(
    patterns: Patterns, positions_N2: NDArray[np.float64], mask_YX: NDArray[np.bool_] | None
) -> Motion | None:
    """Return how patterns move along with the scan; None: that is not seen.

    Args:
        patterns: The patterns; a few dozen are read.
        positions_N2: Where they were taken, in pixels.
        mask_YX: Which pixels count; None: all.
    """
    pairs = _Pairs.read(patterns, positions_N2, _APART * min(patterns.shape[1:]))
    return None if pairs is None else pairs.motion(mask_YX)


class _Pairs(NamedTuple):
    """Patterns, each with a neighbour.

    Attributes:
        first_BYX: The patterns.
        second_BYX: Their neighbours.
        mean_YX: The mean of all.
        scanned_B2: By how much the neighbour's position differs.
    """

    first_BYX: NDArray[np.float64]
    second_BYX: NDArray[np.float64]
    mean_YX: NDArray[np.float64]
    scanned_B2: NDArray[np.float64]

    @classmethod
    def read(cls, patterns: Patterns, positions_N2: NDArray[np.float64], apart: float = 0.0) -> _Pairs | None:
        """Read a few dozen, so far apart at least; None: there are none, or no light."""
        pairs_B2 = _neighbours(positions_N2, apart)
        if not len(pairs_B2):
            return None
        first_BYX, second_BYX = (
            np.nan_to_num(np.asarray(patterns[pairs_B2[:, which]], np.float64)) for which in (0, 1)
        )
        mean_YX = 0.5 * (first_BYX.mean(axis=0) + second_BYX.mean(axis=0))
        if not (np.isfinite(mean_YX).all() and mean_YX.max() > 0):
            return None
        return cls(first_BYX, second_BYX, mean_YX, positions_N2[pairs_B2[:, 1]] - positions_N2[pairs_B2[:, 0]])

    def motion(self, mask_YX: NDArray[np.bool_] | None) -> Motion | None:
        """Return how they move along with the scan; None: they do not."""
        moved_B2, alike_B = _motion(self.first_BYX, self.second_BYX, self.mean_YX, mask_YX)
        found_B = alike_B > _ALIKE
        if found_B.sum() < 6 or found_B.mean() <= 0.5:
            return None
        scanned_B2, moved_B2 = self.scanned_B2[found_B], moved_B2[found_B]
        matrix_22: NDArray[np.floating] = np.linalg.lstsq(scanned_B2, moved_B2, rcond=None)[0]
        off_B = np.hypot(*(scanned_B2 @ matrix_22 - moved_B2).T)
        near_B = off_B <= 3 * max(float(np.median(off_B)), 0.5)  # without pairs that were matched wrongly
        if near_B.sum() >= 6:
            matrix_22 = np.linalg.lstsq(scanned_B2[near_B], moved_B2[near_B], rcond=None)[0]
            off_B = np.hypot(*(scanned_B2 @ matrix_22 - moved_B2).T)
        follow = np.median(off_B) < min(_PIXELS, 0.5 * np.median(np.hypot(*moved_B2.T)))
        return Motion(matrix_22, int(near_B.sum())) if follow else None


def _neighbours(positions_N2: NDArray[np.float64], apart: float) -> NDArray[np.int64]:
    """Return points, evenly spread, each with the nearest other place that is so far away at least."""
    asked = np.unique(np.linspace(0, len(positions_N2) - 1, _PAIRS).round().astype(np.int64))
    pairs = []
    for point in asked:
        away_N = np.hypot(*(positions_N2 - positions_N2[point]).T)
        away_N[away_N <= max(apart, 1e-9 * max(float(away_N.max()), 1e-300))] = np.inf
        if np.isfinite(away_N.min()):
            pairs.append((int(point), int(away_N.argmin())))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _motion(
    first_BYX: NDArray[np.float64],
    second_BYX: NDArray[np.float64],
    mean_YX: NDArray[np.float64],
    mask_YX: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by how many pixels patterns moved against their neighbours (B, 2), and how alike they are then (B)."""
    rows, columns = (np.hanning(size + 2)[1:-1] for size in mean_YX.shape)
    window_YX = np.fft.ifftshift(rows[:, None] * columns)
    weight_YX = window_YX * (mean_YX > 0.05 * mean_YX.max())
    if mask_YX is not None:
        weight_YX = weight_YX * mask_YX
    floor_YX = np.maximum(mean_YX, 1e-3 * mean_YX.max())

    def spectrum(pattern_YX: NDArray[np.float64]) -> NDArray[np.complex128]:
        contrast_YX = pattern_YX / floor_YX  # what stays in its place, the illumination, is divided out
        middle = (contrast_YX * weight_YX).sum() / weight_YX.sum()
        found: NDArray[np.complex128] = np.fft.fft2(np.fft.fftshift((contrast_YX - middle) * weight_YX))
        return found

    moved, alike = [], []
    for first_YX, second_YX in zip(first_BYX, second_BYX, strict=True):  # one at a time, to take little memory
        one, other = spectrum(first_YX), spectrum(second_YX)
        power = np.sqrt((np.abs(one) ** 2).mean() * (np.abs(other) ** 2).mean())
        correlation_YX = np.fft.ifft2(one.conj() * other).real / max(float(power), 1e-300)
        moved.append(np.unravel_index(correlation_YX.argmax(), mean_YX.shape))
        alike.append(correlation_YX.max())
    half_2 = np.array(mean_YX.shape) / 2
    return (np.array(moved, dtype=np.float64) + half_2) % (2 * half_2) - half_2, np.array(alike)
