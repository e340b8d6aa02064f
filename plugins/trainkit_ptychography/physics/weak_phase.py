"""How a weak phase object changes the bright field of a scan, to first order in its phase: what direct methods invert.

A wave P(k) in the aperture and an object of small phase φ make patterns whose changes from scan point to scan point
have the Fourier transform (over the scan) G(k, q) = i φ̂(q) Γ(k, q), with

    Γ(k, q) = P*(k) P(k − q) − P(k) P*(k + q).

Only pixels of the bright field, where P is not 0, change. This is the linear part of the forward model, with any
aberrations and any number of incoherent modes, whose Γ add up.

Shapes: M = probe modes, Y, X = rows and columns of the detector, K = pixels of the bright field. Frequencies q are
those of the detector's grid, zero frequency at [0, 0].

Source:
    Rodenburg, McCallum, Nellist, Ultramicroscopy 48 (1993) 304.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_DARK = 1e-3  # of the brightest pixel
_MOST_PIXELS = 400  # of the bright field: a sum over more of them would change little


def bright_field(light_YX: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which pixels see direct light, where that of a disc on a dark ground is known."""
    level = float((light_YX**2).sum() / light_YX.sum())
    bright_YX: NDArray[np.bool_] = light_YX > 0.5 * level
    return bright_YX


def some_of(pixels_K2: NDArray[np.int64], most: int = _MOST_PIXELS) -> NDArray[np.int64]:
    """Return at most so many pixels, evenly chosen."""
    if len(pixels_K2) <= most:
        return pixels_K2
    return pixels_K2[np.linspace(0, len(pixels_K2) - 1, most).round().astype(np.int64)]


def overlaps(
    aperture_MYX: NDArray[np.complexfloating], pixels_K2: NDArray[np.int64]
) -> Iterator[NDArray[np.complex128]]:
    """Yield Γ(k, q) for each pixel k of the bright field, as (Y, X) over q.

    Args:
        aperture_MYX: The wave's modes in the aperture, P(k), zero frequency at [0, 0].
        pixels_K2: Rows and columns.
    """
    turned_MYX = np.roll(aperture_MYX[:, ::-1, ::-1], (1, 1), (1, 2))  # P(−q)
    for row, column in pixels_K2:
        here_M11 = aperture_MYX[:, row, column, None, None]
        before_MYX = np.roll(turned_MYX, (row, column), (1, 2))  # P(k − q)
        behind_MYX = np.roll(aperture_MYX, (-row, -column), (1, 2))  # P(k + q)
        yield (here_M11.conj() * before_MYX - here_M11 * behind_MYX.conj()).sum(axis=0)


def transferred_power(aperture_MYX: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Return Σ_k |Γ(k, q)|² (Y, X): how much of each frequency of the phase the patterns hold.

    The probe's total power is taken to be 1. Example: without aberrations nothing of a frequency is transferred that is
    far below the edge of the aperture, since both side bands cancel:

        >>> still = np.zeros((1, 16, 16), complex)
        >>> still[0, [0, 0, 0, 1, -1], [0, 1, -1, 0, 0]] = 1
        >>> float(transferred_power(still)[0, 0])
        0.0
    """
    light_YX = (np.abs(aperture_MYX) ** 2).sum(axis=0)
    bright_K2 = np.argwhere(light_YX > _DARK * light_YX.max())  # the edge of the disc holds the slowest variations
    chosen_K2 = some_of(bright_K2)
    power_YX = np.zeros(light_YX.shape)
    for overlap_YX in overlaps(aperture_MYX, chosen_K2):
        power_YX += np.abs(overlap_YX) ** 2
    return power_YX * (len(bright_K2) / len(chosen_K2))
