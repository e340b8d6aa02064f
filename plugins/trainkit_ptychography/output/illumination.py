"""Where an object was lit: what the probe never reached stays as it began, and says nothing.

Shapes: N = scan points, M = probe modes, Y, X = rows and columns of the detector, H, W = those of the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LIT = 0.1  # of the light at a typical scan point


def scanned_part(positions_N2: NDArray[np.float64], shape_HW: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of an object that the probe's centre went over, and a tenth more on each side.

    Args:
        positions_N2: Probe centres in pixels of the object.
        shape_HW: The object's rows and columns.
    """
    low_2, high_2 = positions_N2.min(axis=0), positions_N2.max(axis=0)
    around = 0.1 * float((high_2 - low_2).max())
    rows, columns = (
        slice(max(0, int(low - around)), max(2, min(size, int(np.ceil(high + around)) + 1)))
        for low, high, size in zip(low_2, high_2, shape_HW, strict=True)
    )
    return rows, columns


def illumination(
    probe_MYX: NDArray[np.complexfloating], positions_N2: NDArray[np.float64], shape_HW: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the light that reached each pixel of an object, added up over all scan points.

    Args:
        probe_MYX: Complex modes, centred at pixel (Y//2, X//2).
        positions_N2: Where the probe's centre was, in pixels of the object.
        shape_HW: The object's rows and columns.
    """
    height, width = shape_HW
    places_N2 = np.rint(positions_N2).astype(np.int64)
    inside_N = ((places_N2 >= 0) & (places_N2 < shape_HW)).all(axis=1)
    visits_HW = np.zeros(shape_HW)
    np.add.at(visits_HW, tuple(places_N2[inside_N].T), 1.0)
    light_YX = (np.abs(probe_MYX).astype(np.float64) ** 2).sum(axis=0)
    num_y, num_x = light_YX.shape
    padded = (height + num_y, width + num_x)  # so that nothing wraps around
    spread = np.fft.irfft2(np.fft.rfft2(visits_HW, padded) * np.fft.rfft2(light_YX, padded), padded)
    lit_HW = spread[num_y // 2 : num_y // 2 + height, num_x // 2 : num_x // 2 + width]
    return np.maximum(lit_HW, 0.0)


def lit(light_HW: NDArray[np.float64], positions_N2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which pixels received at least a tenth of the light of a typical scan point.

    Args:
        light_HW: The light that reached each pixel.
        positions_N2: The scan points, in pixels of the object.
    """
    lit_HW: NDArray[np.bool_] = light_HW >= _LIT * typical_light(light_HW, positions_N2)
    return lit_HW


def typical_light(light_HW: NDArray[np.float64], positions_N2: NDArray[np.float64]) -> float:
    """Return the light at a typical scan point: the median. Arguments as for `lit`."""
    places_N2 = np.clip(np.rint(positions_N2).astype(np.int64), 0, np.array(light_HW.shape) - 1)
    return float(np.median(light_HW[tuple(places_N2.T)]))
