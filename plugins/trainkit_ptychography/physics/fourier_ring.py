"""Fourier ring correlation: up to which spatial frequency two images of the same thing agree.

Shapes: H, W = rows and columns of an image, R = rings.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ONE_BIT, HALF_BIT = 1.0, 0.5  # of information in a Fourier pixel of both halves together
_FIRST_RINGS, _COARSE_PERIODS = 3, 0.125  # rings, or cycles per pixel, within which halves have to begin to agree
_REAL = 0.5  # of the Fourier pixels of a ring are independent; the others mirror them if the object only shifts phases
MOST_SHIFT = 3.0  # pixels that one image may be shifted against the other
_MOST_TURNS = 3.0  # turns of the phase from one edge to the other that one image may have more
_ROUNDS = 3
_COARSE = 0.5  # step of the first search for a maximum
_FINER = ((0.5, 0.1), (0.1, 0.01))  # half-width and step of the next ones


class RingCorrelation(NamedTuple):
    """How well two images agree, by spatial frequency.

    Attributes:
        frequency_R: Middle of each ring, in cycles per pixel.
        correlation_R: The correlation, from −1 to 1.
        number_R: How many independent Fourier pixels each ring has.
    """

    frequency_R: NDArray[np.float64]
    correlation_R: NDArray[np.float64]
    number_R: NDArray[np.float64]


class Crossing(NamedTuple):
    """Up to which frequency a correlation is above a threshold.

    Attributes:
        frequency: Where it first falls below, in cycles per pixel, interpolated between rings; None: it is above in
            none of the inner rings, or nowhere below.
        is_above: Whether it is above in all rings from the first on in which it is above.
        again: The last ring in which it is above once more, in cycles per pixel, as beyond a gap between reflections of
            a crystal; None: there is none.
    """

    frequency: float | None
    is_above: bool
    again: float | None = None


class Alignment(NamedTuple):
    """What made one image fit the other.

    Attributes:
        shift_2: How far it was moved, (row, column) in pixels.
        turns_2: Which ramp of the phase was taken out of it, in turns from one edge of the window to the other.
        offset_rad: Which phase was taken out of all of it.
    """

    shift_2: tuple[float, float]
    turns_2: tuple[float, float]
    offset_rad: float


def tapered(shape_HW: tuple[int, int]) -> NDArray[np.float64]:
    """Return a window that falls to 0 from its middle to its edges as a cosine (Hann).

    A window that is flat in its middle and steeper at its edges leaks more: part of the strong coarse structure appears
    at fine periods, in both halves alike, and is taken for agreement there. With a taper over a quarter of the width,
    18 pixels of an image with a resolution of 4.0 pixels had one of 2.9, and with this one 3.9.
    """
    rows_H, columns_W = (_tapered_line(size) for size in shape_HW)
    window_HW: NDArray[np.float64] = rows_H[:, None] * columns_W
    return window_HW


def _tapered_line(size: int) -> NDArray[np.float64]:
    line: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    return line


def ring_correlation(
    one_HW: NDArray[np.complexfloating], other_HW: NDArray[np.complexfloating], window_HW: NDArray[np.float64]
) -> RingCorrelation:
    """Return the Fourier ring correlation Re Σ A·conj(B) / √(Σ|A|² Σ|B|²) of two images, for rings up to Nyquist.

    Their means under the window are taken out first. A window makes neighbouring Fourier pixels depend on each other,
    so only (Σw²)² / (number of pixels · Σw⁴) of them count, and of these half, because the spectrum of an object that
    only shifts phases has a mirror. If the object absorbs independently, this is cautious.

    Args:
        one_HW: An image.
        other_HW: Another one, aligned with it.
        window_HW: Weights that fall to 0 at the edges.

    Source:
        Saxton, Baumeister, J. Microsc. 127 (1982) 127; van Heel, Keegstra, Schutter, van Bruggen (1982).
    """
    spectra = [np.fft.fft2(window_HW * _without_mean(each_HW, window_HW)) for each_HW in (one_HW, other_HW)]
    height, width = window_HW.shape
    frequency_HW = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    smaller = min(height, width)
    ring_HW = np.rint(frequency_HW * smaller).astype(np.int64)
    num = smaller // 2 + 1

    def summed(values_HW: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(ring_HW.ravel(), values_HW.ravel(), minlength=num)[1:num].astype(np.float64)

    common_R = summed((spectra[0] * spectra[1].conj()).real)
    powers = [summed(np.abs(each_HW) ** 2) for each_HW in spectra]
    bottom_R = np.sqrt(powers[0] * powers[1])
    correlation_R = np.divide(common_R, bottom_R, out=np.zeros_like(common_R), where=bottom_R > 0)
    count_R = summed(np.ones_like(frequency_HW))
    w2, w4 = float((window_HW**2).sum()), float((window_HW**4).sum())
    independent = _REAL * w2**2 / max(window_HW.size * w4, 1e-300)
    return RingCorrelation(np.arange(1, num) / smaller, correlation_R, count_R * independent)


def threshold(number_R: NDArray[np.float64], bits: float) -> NDArray[np.float64]:
    """Return the correlation of two halves in a ring above which both together hold so much information.

    Args:
        number_R: Number of independent Fourier pixels.
        bits: Information in a Fourier pixel of both halves together.

    Example:
        >>> np.round(threshold(np.array([1e12, 100.0]), 1.0), 4)
        array([0.3333, 0.4517])

    Source:
        van Heel, Schatz, J. Struct. Biol. 151 (2005) 250, eq. 17: each half has half of the signal-to-noise ratio
        2^bits − 1; 0.2071, 1.9102 and 0.9102 for half a bit, 0.5, 2.4142 and 1.4142 for one.
    """
    half = (2.0**bits - 1.0) / 2.0
    root_R = np.sqrt(np.maximum(number_R, 1e-12))
    limit_R: NDArray[np.float64] = (half + (2 * sqrt(half) + 1) / root_R) / (half + 1 + 2 * sqrt(half) / root_R)
    return limit_R


def crossing(rings: RingCorrelation, limit_R: NDArray[np.float64]) -> Crossing:
    """Return where a correlation first falls below a threshold, from the first ring on in which it is above it.

    That ring must be one of the innermost, or of a coarse period: halves that begin to agree at a fine period agree by
    chance. But the innermost ring itself, which is hardly transferred, is often below.

    Args:
        rings: The correlation.
        limit_R: The threshold of each ring.
    """
    over_R = rings.correlation_R - limit_R
    above_R = over_R >= 0
    first = int(above_R.argmax())
    if not above_R.any() or (first >= _FIRST_RINGS and rings.frequency_R[first] > _COARSE_PERIODS):
        return Crossing(None, False)
    below = np.flatnonzero(~above_R[first:])
    if not len(below):
        return Crossing(None, True)
    ring = first + int(below[0])
    share = over_R[ring - 1] / (over_R[ring - 1] - over_R[ring])
    step = rings.frequency_R[ring] - rings.frequency_R[ring - 1]
    later = ring + np.flatnonzero(above_R[ring:])
    again = float(rings.frequency_R[later[-1]]) if len(later) else None
    return Crossing(float(rings.frequency_R[ring - 1] + share * step), False, again)


def against_truth(correlation_R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation with the truth that both halves together should have: √(2·FRC / (1 + FRC)).

    Source:
        Rosenthal, Henderson, J. Mol. Biol. 333 (2003) 721.
    """
    known_R = np.clip(correlation_R, 0.0, 1.0)
    expected_R: NDArray[np.float64] = np.sqrt(2 * known_R / (1 + known_R))
    return expected_R


def aligned(
    target_HW: NDArray[np.complexfloating],
    other_HW: NDArray[np.complexfloating],
    window_HW: NDArray[np.float64],
    corner: tuple[int, int],
) -> tuple[NDArray[np.complexfloating], Alignment]:
    """Return the part of a transmission that fits a part of another one, and what made it fit.

    A shift to 0.01 pixels, a ramp and an offset of the phase are taken out: no pattern can tell them.

    Args:
        target_HW: The part of the other one.
        other_HW: The whole transmission, at the same place up to three pixels.
        window_HW: Weights of the part that is compared.
        corner: First row and column of that part.
    """
    size = window_HW.shape
    part = tuple(slice(first, first + length) for first, length in zip(corner, size, strict=True))
    # In turns of the phase from one edge of the part to the other, 0 in its middle.
    rows_H, columns_W = (
        (np.arange(whole) - first - (length - 1) / 2) / length
        for whole, first, length in zip(other_HW.shape, corner, size, strict=True)
    )
    inside = [rows_H[part[0]], columns_W[part[1]]]
    frequencies = [np.asarray(np.fft.fftfreq(each), np.float64) for each in other_HW.shape]
    weight_spectrum_HW = _spectrum_of_part(window_HW, part, other_HW.shape)
    target_spectrum_HW = _spectrum_of_part(window_HW * _without_mean(target_HW, window_HW), part, other_HW.shape)
    shift, turns, offset = (0.0, 0.0), (0.0, 0.0), 0.0
    fitted_HW = other_HW[part]
    for _ in range(_ROUNDS):
        product_HW = window_HW * target_HW * np.conj(fitted_HW)
        more = _brightest(product_HW, inside, _MOST_TURNS)
        ramp_HW = np.exp(2j * np.pi * (more[0] * inside[0][:, None] + more[1] * inside[1]))
        turns = (turns[0] + more[0], turns[1] + more[1])
        offset += float(np.angle((product_HW * np.conj(ramp_HW)).sum()))
        flat_HW = other_HW * np.exp(1j * (2 * np.pi * (turns[0] * rows_H[:, None] + turns[1] * columns_W) + offset))
        mean = flat_HW[part].mean()
        spectrum_HW = np.fft.fft2(flat_HW - mean)
        # Divided by the power of what comes under the window: otherwise, a shift towards stronger parts looks better.
        power_HW = np.fft.fft2(np.abs(flat_HW - mean) ** 2)
        shift = _brightest(
            target_spectrum_HW * np.conj(spectrum_HW),
            [-each for each in frequencies],
            MOST_SHIFT,
            weight_spectrum_HW * np.conj(power_HW),
        )
        wave_HW = np.exp(-2j * np.pi * (shift[0] * frequencies[0][:, None] + shift[1] * frequencies[1]))
        fitted_HW = np.fft.ifft2(spectrum_HW * wave_HW)[part] + mean
    return fitted_HW, Alignment(shift, turns, offset)


def _spectrum_of_part(
    part_HW: NDArray[Any], part: tuple[slice, ...], whole: tuple[int, ...]
) -> NDArray[np.complexfloating]:
    placed_HW = np.zeros(whole, dtype=complex)
    placed_HW[part] = part_HW
    spectrum_HW: NDArray[np.complexfloating] = np.fft.fft2(placed_HW)
    return spectrum_HW


def _brightest(
    values_HW: NDArray[np.complexfloating],
    places: list[NDArray[np.float64]],
    most: float,
    relative_to_HW: NDArray[np.complexfloating] | None = None,
) -> tuple[float, float]:
    """Return at which two frequencies the Fourier transform of values at places has the largest power.

    Args:
        values_HW: The values.
        places: The places of their rows and columns.
        most: The largest frequency that is looked at.
        relative_to_HW: Values by whose transform, which is positive, the power is divided; None: it is not.
    """
    best = (0.0, 0.0)
    for half_width, step in ((most, _COARSE), *_FINER):
        offsets = np.arange(-half_width, half_width + step / 2, step)
        waves = [np.exp(-2j * np.pi * np.outer(middle + offsets, at)) for middle, at in zip(best, places, strict=True)]
        power = np.abs(waves[0] @ values_HW @ waves[1].T) ** 2
        if relative_to_HW is not None:
            power /= np.maximum((waves[0] @ relative_to_HW @ waves[1].T).real, 1e-300)
        down, right = np.unravel_index(int(power.argmax()), power.shape)
        best = (float(best[0] + offsets[down]), float(best[1] + offsets[right]))
    return best


def _without_mean(image_HW: NDArray[np.complexfloating], window_HW: NDArray[np.float64]) -> NDArray[np.complexfloating]:
    centred: NDArray[np.complexfloating] = image_HW - (window_HW * image_HW).sum() / window_HW.sum()
    return centred
