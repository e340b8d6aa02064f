"""From factors of frequencies on the grid of the probe's array to those on the grid of the object.

Shapes: Y, X = rows and columns of the probe's array, H, W = those of the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def on_frequencies_of(shape_HW: tuple[int, ...], factor_YX: NDArray[np.inexact]) -> NDArray[np.inexact]:
    """Return factors at the frequencies of an array of another size, with pixels of the same size.

    Args:
        shape_HW: Rows and columns of that array.
        factor_YX: Real or complex, zero frequency at [0, 0].

    Returns:
        (H, W), zero frequency at [0, 0].
    """
    from scipy import ndimage  # not at the start of every run

    centred_YX = np.fft.fftshift(factor_YX)
    at = np.meshgrid(
        *(np.fft.fftfreq(new) * old + old // 2 for new, old in zip(shape_HW, factor_YX.shape, strict=True)),
        indexing="ij",
    )
    found: NDArray[np.inexact] = ndimage.map_coordinates(centred_YX, at, order=1, mode="grid-wrap")
    return found
