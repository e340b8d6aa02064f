"""Measures the distance between specimen and detector by the fringes of near-field images.

Between a phase object and its image lies the contrast transfer function: details of the spatial frequency k have the
contrast sin(πλz k²), so the power spectrum of images has rings, dark where λz k² is a whole number. (Electron
microscopists call them Thon rings.) Against k² they are one oscillation, whose frequency is λz: no reconstruction is
needed to find it. A reconstruction hardly tells the distance, because an object with more or less contrast makes up for
a wrong one; rings tell it within some percent. Absorption moves the rings together, and leaves their distance.

Shapes: N = patterns, Y, X = rows and columns of a pattern, V, U = those of the part that was measured, H = halves of
the patterns, K = classes of k², Z = distances that are tried out.

Source:
    Pogany, Gao, Wilkins, Review of Scientific Instruments 68 (1997) 2774 (contrast transfer of X-ray images);
    Lomb, Astrophysics and Space Science 39 (1976) 447 (an oscillation of unknown phase by least squares).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.patterns import Patterns

_PATTERNS, _FEWEST = 256, 8
_PIXELS = 2**24  # of all patterns that are looked at together
_CLASSES = 64  # of k² up to the highest frequency along an axis, 1/4 per pixel squared
_FIRST = 2  # classes from the zero frequency on that are left out: the window blurs them
_DEGREES = (3, 4)  # of the polynomials in log k² that a specimen's own spectrum may follow
_LEAST_PIXELS = 32  # rows, and columns
_LEAST_RINGS = 2.0  # oscillations up to the highest frequency: fewer are taken for the specimen's own spectrum
_WIDEST = 3.0  # pixels of a side, over the λz at which rings become narrower than the window resolves
_TRIED = 300
_CLEAR = 20.0  # F of the oscillation; without rings, up to 18 were seen
_AGREE = 1.12  # largest over smallest λz, of the halves of the patterns and both polynomials
_DARK = 1e-2  # of the brightest pixel of the mean pattern


class Fringes(NamedTuple):
    """What rings tell.

    Attributes:
        squared_pixels: λz in object pixels squared.
        worse: Of a distance that was asked for: by how much the sum of squares is larger with it than at best, in
            variances of a class; NaN if none was.
    """

    squared_pixels: float
    worse: float


def fresnel_fringes(
    patterns: Patterns, mask_YX: NDArray[np.bool_] | None, asked_squared_pixels: float
) -> Fringes | None:
    """Return what distance the rings of the power spectrum tell; None: there are none, or too few, to be seen.

    Both halves of the patterns have to tell the same, and with both polynomials.

    Args:
        patterns: The patterns, their middle at [0, 0]; a few hundred are read.
        mask_YX: Which pixels count; None: all.
        asked_squared_pixels: λz in object pixels squared, of the distance that the rings are compared with.
    """
    power_HK, square_K = _power(patterns, mask_YX) or (None, None)
    if power_HK is None or square_K is None:
        return None
    largest = min(_measured(patterns.shape[1:], mask_YX)[1]) / _WIDEST
    smallest = _LEAST_RINGS / square_K[-1]
    if largest <= smallest:
        return None
    tried_Z = np.geomspace(smallest, largest, _TRIED)
    found, worse = [], []
    for power_K in power_HK:
        for degree in _DEGREES:
            fit = _Oscillation(square_K, np.log(power_K), degree)
            left_Z = np.array([fit.left(each) for each in tried_Z])
            best = int(left_Z.argmin())
            variance = left_Z[best] / fit.freedom
            if best in (0, _TRIED - 1) or (fit.without - left_Z[best]) / 2 < _CLEAR * variance:
                return None
            found.append(tried_Z[best])
            worse.append((fit.left(asked_squared_pixels) - left_Z[best]) / variance)
    if max(found) > _AGREE * min(found):
        return None
    return Fringes(float(np.exp(np.log(found).mean())), float(min(worse)))


class _Oscillation:
    """Fits the logarithm of a power spectrum by a polynomial in log k², and an oscillation in k².

    Attributes:
        without: The sum of squares that is left without the oscillation.
        freedom: How many numbers more there are than parameters with it.
    """

    def __init__(self, square_K: NDArray[np.float64], values_K: NDArray[np.float64], degree: int) -> None:
        self._square_K, self._values_K = square_K, values_K
        along_K = np.log(square_K)
        along_K = (along_K - along_K.mean()) / along_K.std()
        self._smooth_KD = along_K[:, None] ** np.arange(degree + 1)
        self.without = self._left_of(self._smooth_KD)
        self.freedom = len(values_K) - degree - 4

    def left(self, squared_pixels: float) -> float:
        """Return the sum of squares that is left with the rings of a λz."""
        angle_K = 2 * np.pi * squared_pixels * self._square_K
        return self._left_of(np.column_stack([self._smooth_KD, np.cos(angle_K), np.sin(angle_K)]))

    def _left_of(self, basis_KD: NDArray[np.float64]) -> float:
        coefficients_D = np.linalg.lstsq(basis_KD, self._values_K, rcond=None)[0]
        return float(np.square(self._values_K - basis_KD @ coefficients_D).sum())


def _power(
    patterns: Patterns, mask_YX: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the mean power of the classes of k², of both halves of the patterns (H, K), and their k² (K)."""
    shape = patterns.shape[1:]
    (first_row, first_column), (rows, columns) = _measured(shape, mask_YX)
    if len(patterns) < _FEWEST or min(rows, columns) < _LEAST_PIXELS:
        return None
    most = min(len(patterns), _PATTERNS, max(_FEWEST, _PIXELS // (rows * columns)))
    part = np.s_[..., first_row : first_row + rows, first_column : first_column + columns]
    counted_VU = np.ones((rows, columns), bool) if mask_YX is None else np.fft.fftshift(mask_YX)[part]
    points = np.unique(np.linspace(0, len(patterns) - 1, most).round().astype(np.int64))

    def image(point: int) -> NDArray[np.float64]:
        pattern_YX = np.nan_to_num(np.asarray(patterns[np.array([point])][0], np.float64))
        image_VU: NDArray[np.float64] = np.fft.fftshift(pattern_YX)[part]
        return image_VU

    mean_VU = sum((image(int(point)) for point in points), np.zeros((rows, columns))) / len(points)
    if not mean_VU.max() > 0:
        return None
    floor_VU = np.maximum(mean_VU, _DARK * mean_VU.max())
    window_VU = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1] * counted_VU
    square_VU = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns) ** 2
    class_VU = np.digitize(square_VU, np.linspace(0, 0.25, _CLASSES + 1)) - 1
    num_K = np.bincount(class_VU.ravel(), minlength=_CLASSES)[:_CLASSES]
    power_HK = np.zeros((2, _CLASSES))
    for number, point in enumerate(points):
        contrast_VU = image(int(point)) / floor_VU  # the beam, which rests, is divided out
        contrast_VU = (contrast_VU - (contrast_VU * window_VU).sum() / window_VU.sum()) * window_VU
        power_VU = np.square(np.abs(np.fft.fft2(contrast_VU)))
        power_HK[number % 2] += np.bincount(class_VU.ravel(), power_VU.ravel(), _CLASSES)[:_CLASSES]
    square_K = np.bincount(class_VU.ravel(), square_VU.ravel(), _CLASSES)[:_CLASSES] / np.maximum(num_K, 1)
    kept_K = (num_K > 0) & (power_HK > 0).all(axis=0) & (np.arange(_CLASSES) >= _FIRST)
    return (power_HK / np.maximum(num_K, 1))[:, kept_K], square_K[kept_K]


def _measured(shape: tuple[int, ...], mask_YX: NDArray[np.bool_] | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first row and column of what was measured, with the middle in the middle, and how many there are."""
    if mask_YX is None:
        return (0, 0), (shape[0], shape[1])
    counted_YX = np.fft.fftshift(mask_YX)
    ends = [np.flatnonzero(counted_YX.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    return (int(ends[0][0]), int(ends[1][0])), (int(np.ptp(ends[0])) + 1, int(np.ptp(ends[1])) + 1)
