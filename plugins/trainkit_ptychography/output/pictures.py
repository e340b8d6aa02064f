"""What a person looks at: arrays as 8-bit colour images.

Shapes: N = scan points, M = probe modes, H, W = rows and columns of an image, C = its three colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import SAFE_ON_WHITE, ScaleBar, picture_font, scale_bar

_SMALLEST = 384  # pixels along the longer side; smaller arrays are enlarged by whole factors
_NARROWEST = 384  # so that there is room for the caption of a narrow array
_IN_ROW = 4
_STRIP, _WHEEL, _GAP, _FONT = 32, 60, 8, 14  # pixels

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


def grey(array_HW: NDArray[np.floating], pixel_size_angstrom: float | None, unit: str) -> Image:
    """Return an array in shades of grey, from its 0.5th percentile (black) to its 99.5th (white), over a scale bar.

    Args:
        array_HW: What to show.
        pixel_size_angstrom: Size of a pixel, for the scale bar; None: it is in pixels.
        unit: Unit of the values; "" for pure numbers.
    """
    low, high = (float(each) for each in np.percentile(array_HW, (0.5, 99.5)))
    shade_HW = np.clip((array_HW - low) / max(high - low, 1e-12), 0.0, 1.0)
    factor = _factor(array_HW.shape)
    image_HWC = _enlarged(np.repeat(_bytes(shade_HW)[:, :, None], 3, axis=2), factor)
    caption = f"{low:.3g} … {high:.3g} {unit}".replace("-", "−").strip()
    return _with_footer(image_HWC, _bar(array_HW.shape[1], pixel_size_angstrom), factor, caption, wheel=False)


def complex_arrays(
    arrays_MHW: NDArray[np.complexfloating],
    pixel_size_angstrom: float | None,
    caption: str = "",
    brightest_percent: float = 100.0,
) -> Image:
    """Return complex arrays side by side, four in a row: phase as hue, magnitude as brightness.

    Each array is scaled by its own magnitudes. A colour wheel under them shows which hue is which phase.

    Args:
        arrays_MHW: One or more arrays.
        pixel_size_angstrom: Size of a pixel, for the scale bar; None: it is in pixels.
        caption: What to write under them.
        brightest_percent: The percentile of the magnitudes that is shown at full brightness.
    """
    count, height, width = arrays_MHW.shape
    factor = _factor((height, width))
    in_row = min(count, _IN_ROW)
    rows = -(-count // in_row)
    grid_HWC = np.zeros((rows * height, in_row * width, 3), dtype=np.uint8)
    for place, array_HW in enumerate(arrays_MHW):
        top, left = place // in_row * height, place % in_row * width
        grid_HWC[top : top + height, left : left + width] = _hue_and_brightness(
            array_HW, float(np.percentile(np.abs(array_HW), brightest_percent))
        )
    bar = _bar(width, pixel_size_angstrom)
    return _with_footer(_enlarged(grid_HWC, factor), bar, factor, caption, wheel=True)


def positions(
    nominal_N2: NDArray[np.float64], now_N2: NDArray[np.float64], true_N2: NDArray[np.float64] | None
) -> Image:
    """Return a plot of scan positions: nominal, current and, if they are known, true ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 7.0), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal", xlabel="column / pixels", ylabel="row / pixels")
    if true_N2 is not None:
        axes.plot(
            true_N2[:, 1], true_N2[:, 0], "o", color=SAFE_ON_WHITE[0], markersize=5, fillstyle="none", label="true"
        )
    axes.plot(nominal_N2[:, 1], nominal_N2[:, 0], "+", color="0.6", markersize=4, label="nominal")
    axes.plot(now_N2[:, 1], now_N2[:, 0], ".", color=SAFE_ON_WHITE[1], markersize=3, label="now")
    axes.invert_yaxis()
    axes.legend(loc="upper right")
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3]


def _hue_and_brightness(array_HW: NDArray[np.complexfloating], full: float) -> Image:
    magnitude_HW = np.minimum(np.abs(array_HW) / max(full, 1e-30), 1.0)
    # A colour wheel of three cosines a third of a turn apart: smooth, and red where the phase is 0.
    turns_C = np.array([0.0, 1.0, 2.0]) * 2 * np.pi / 3
    colour_HWC = 0.5 + 0.5 * np.cos(np.angle(array_HW)[:, :, None] - turns_C)
    return _bytes(magnitude_HW[:, :, None] * colour_HWC)


def _bytes(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.rint(255 * values), dtype=np.uint8)


def _factor(shape: tuple[int, ...]) -> int:
    return max(1, round(_SMALLEST / max(shape)))


def _enlarged(image_HWC: Image, factor: int) -> Image:
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)


def _bar(width: int, pixel_size_angstrom: float | None) -> ScaleBar:
    return scale_bar(width, None if pixel_size_angstrom is None else 1e-10 * pixel_size_angstrom)


def _with_footer(image_HWC: Image, bar: ScaleBar, factor: int, caption: str, wheel: bool) -> Image:
    """Put a black strip under an image, which stays as it is: scale bar on the left, caption, wheel on the right."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    height, width = image_HWC.shape[:2]
    strip = _WHEEL + 2 * _GAP if wheel else _STRIP
    canvas_HWC = np.zeros((height + strip, max(width, _NARROWEST), 3), dtype=np.uint8)
    canvas_HWC[:height, :width] = image_HWC
    if wheel:
        canvas_HWC[height + _GAP : height + _GAP + _WHEEL, -_WHEEL - 3 * _GAP : -3 * _GAP] = _colour_wheel(_WHEEL)
    canvas = Pillow.fromarray(canvas_HWC)
    draw = ImageDraw.Draw(canvas)
    font = picture_font(_FONT)
    middle, length = height + strip // 2, round(bar.pixels * factor)
    draw.rectangle((_GAP, middle - 3, _GAP + length - 1, middle + 2), fill="white")
    draw.text((2 * _GAP + length, middle), bar.label, fill="white", font=font, anchor="lm")
    right = canvas_HWC.shape[1] - _GAP
    if wheel:
        draw.text((right, middle), "0", fill="white", font=font, anchor="rm")
        right -= _WHEEL + 3 * _GAP
        draw.text((right, middle), "π", fill="white", font=font, anchor="rm")
        draw.text((right + _GAP, height + 2), "π/2", fill="white", font=font, anchor="rt")
        right -= 3 * _GAP
    draw.text((right, middle), caption, fill="white", font=font, anchor="rm")
    return np.array(canvas, dtype=np.uint8)


def _colour_wheel(size: int) -> Image:
    """Return a disc of the complex numbers: real part to the right, imaginary part up."""
    along = np.linspace(-1.0, 1.0, size)
    plane_HW = along[None, :] - 1j * along[:, None]
    return _hue_and_brightness(np.where(np.abs(plane_HW) <= 1.0, plane_HW, 0.0), 1.0)
