"""What a person looks at: arrays as 8-bit colour images.

Shapes: N = scan points, M = probe modes, H, W = rows and columns of an image, C = its three colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 320  # pixels along the longer side; smaller arrays are enlarged by whole factors

Image = NDArray[np.uint8]


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


def grey(array_HW: NDArray[np.floating]) -> Image:
    """Return an array in shades of grey, from its 0.5th percentile (black) to its 99.5th (white)."""
    low, high = np.percentile(array_HW, (0.5, 99.5))
    shade_HW = np.clip((array_HW - low) / max(float(high - low), 1e-12), 0.0, 1.0)
    return _enlarged(np.repeat(_bytes(shade_HW)[:, :, None], 3, axis=2))


def complex_modes(modes_MHW: NDArray[np.complexfloating]) -> Image:
    """Return complex arrays side by side: phase as hue, magnitude (of each, over its largest) as brightness."""
    coloured = [_hue_and_brightness(mode_HW) for mode_HW in modes_MHW]
    return _enlarged(np.concatenate(coloured, axis=1))


def positions(
    nominal_N2: NDArray[np.float64], now_N2: NDArray[np.float64], true_N2: NDArray[np.float64] | None
) -> Image:
    """Return a plot of scan positions: where they were said to be, where they are now, and the truth if it is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 7.0), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal", xlabel="column / pixels", ylabel="row / pixels")
    if true_N2 is not None:
        axes.plot(true_N2[:, 1], true_N2[:, 0], "o", color="tab:green", markersize=5, fillstyle="none", label="true")
    axes.plot(nominal_N2[:, 1], nominal_N2[:, 0], "+", color="0.6", markersize=4, label="nominal")
    axes.plot(now_N2[:, 1], now_N2[:, 0], ".", color="tab:red", markersize=3, label="now")
    axes.invert_yaxis()
    axes.legend(loc="upper right")
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3]


def _hue_and_brightness(array_HW: NDArray[np.complexfloating]) -> Image:
    magnitude_HW = np.abs(array_HW) / max(float(np.abs(array_HW).max()), 1e-30)
    # A colour wheel of three cosines a third of a turn apart: smooth, and red where the phase is 0.
    turns_C = np.array([0.0, 1.0, 2.0]) * 2 * np.pi / 3
    colour_HWC = 0.5 + 0.5 * np.cos(np.angle(array_HW)[:, :, None] - turns_C)
    return _bytes(magnitude_HW[:, :, None] * colour_HWC)


def _bytes(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.rint(255 * values), dtype=np.uint8)


def _enlarged(image_HWC: Image) -> Image:
    factor = max(1, round(_SMALLEST / max(image_HWC.shape[:2])))
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)
