"""What the pictures of this plugin have in common: a frame with headings, images with scale bars, colour bars.

A frame is 12 inches, that is 1,440 pixels wide. Places in it are in inches, counted from its upper left corner: an
automatic layout takes longer than all the rest.

Shapes: H, W = rows and columns of an image, C = its three colours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import ScaleBar, scale_bar

WIDTH = 12.0  # inches
MARGIN = 0.35
HEAD = 0.95  # height of the headings
FOOT = 0.5  # below an image, for its scale bar
_DPI = 120
_SUBTITLE = "0.35"  # grey
_BELOW = 0.31  # inches from the axis of columns to its label
_SHARP = 3.0  # pixels of the picture for one of an image, from which on these have sharp edges
_THINNEST = 1.5  # inches, of an image that is long and narrow

TITLE: dict[str, Any] = {"fontsize": 11, "loc": "left", "y": 1.001}
"""Of axes. Its place is given: if it is 1, matplotlib measures all labels of the axes to find another one."""

Image = NDArray[np.uint8]


class Box(NamedTuple):
    """A place in a frame, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


class Limits(NamedTuple):
    """The values that are shown in the first and in the last colour."""

    low: float
    high: float


class Frame:
    """An empty picture with headings.

    Args:
        height: Its height in inches.
        title: What is shown.
        subtitle: Of which run, and when.
    """

    def __init__(self, height: float, title: str, subtitle: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = round(_DPI * height) / _DPI  # whole pixels, so that images are where their outlines are
        self.figure = Figure(figsize=(WIDTH, self.height + 1e-6), dpi=_DPI, facecolor="white")
        self._canvas: Any = FigureCanvasAgg(self.figure)
        self.text(MARGIN, 0.42, title, fontsize=17, weight="bold")
        self.text(MARGIN, 0.72, subtitle, fontsize=11, color=_SUBTITLE)

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        """Write words, whose base line begins at a place."""
        self.figure.text(left / WIDTH, 1 - top / self.height, words, **({"va": "baseline", "ha": "left"} | style))

    def axes(self, box: Box, for_numbers: float = 0.6, **settings: Any) -> Any:
        """Return axes that fill a box.

        Args:
            box: The box.
            for_numbers: Inches between the axis of rows and its label. They are given, because matplotlib would measure
                all numbers once more to find them.
            settings: Settings of matplotlib's axes.
        """
        axes = self._empty_axes(box, **settings)
        axes.xaxis.set_label_coords(0.5, -_BELOW / box.height)
        axes.yaxis.set_label_coords(-for_numbers / box.width, 0.5)
        return axes

    def _empty_axes(self, box: Box, **settings: Any) -> Any:
        across, down = 1 / WIDTH, 1 / self.height
        place = (box.left * across, 1 - (box.top + box.height) * down, box.width * across, box.height * down)
        return self.figure.add_axes(place, **settings)

    def image(self, box: Box, values_HW: NDArray[Any], bad: str = "white", **colours: Any) -> Any:
        """Show an image in a box, and return what its colour bar needs.

        It is no axes of matplotlib, whose ticks would take most of the time, seen or not; and it has the size of its
        box before matplotlib gets it, because Pillow enlarges colours ten times as fast as matplotlib values.

        Args:
            box: The place.
            values_HW: Values, or colours (H, W, 3) from 0 to 1; what is masked is shown in the colour ``bad``.
            bad: That colour.
            colours: The colour map and its limits, as for matplotlib's ``imshow``.
        """
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.patches import Rectangle
        from PIL import Image as Pictures

        from trainkit_ptychography.output.pixels_in_place import PixelsInPlace

        norm = colours.get("norm") or Normalize(colours.get("vmin"), colours.get("vmax"))
        shown = ScalarMappable(norm, colormaps[colours.get("cmap", "gray")].with_extremes(bad=bad))
        colours_HWC = shown.to_rgba(values_HW, bytes=True)
        left, top, width, height = (round(_DPI * each) for each in box)
        # Pixels that are large enough to be seen have sharp edges.
        sharp = min(width / colours_HWC.shape[1], height / colours_HWC.shape[0]) >= _SHARP
        resample = Pictures.Resampling.NEAREST if sharp else Pictures.Resampling.HAMMING
        pixels = Pictures.fromarray(colours_HWC).resize((width, height), resample)
        bottom = round(_DPI * self.height) - top - height
        self.figure.add_artist(PixelsInPlace(np.asarray(pixels), left, bottom))
        outline = Rectangle((left, bottom), width, height, fill=False, linewidth=0.6, edgecolor="black", transform=None)
        self.figure.add_artist(outline)
        return shown

    def bar(self, box: Box, num_columns: int, bar: ScaleBar) -> None:
        """Draw a scale bar below an image of so many columns, where it hides nothing."""
        from matplotlib.patches import Rectangle

        length = bar.pixels / num_columns * box.width
        top = box.top + box.height + 0.14
        corner = (box.left / WIDTH, 1 - (top + 0.07) / self.height)
        self.figure.add_artist(
            Rectangle(corner, length / WIDTH, 0.07 / self.height, facecolor="black", edgecolor="none")
        )
        self.text(box.left + length + 0.1, top + 0.035, bar.label, fontsize=11, va="center")

    def colours(self, beside: Box, shown: Any, label: str, **settings: Any) -> None:
        """Draw a colour bar with its unit to the right of an image."""
        axes = self._empty_axes(Box(beside.left + beside.width + 0.15, beside.top, 0.2, beside.height))
        bar = self.figure.colorbar(shown, cax=axes, **settings)
        bar.set_label(label, fontsize=11)
        bar.outline.set_linewidth(0.6)

    def pixels(self) -> Image:
        """Return the picture (height, width, 3)."""
        from PIL import Image as Pictures

        self._canvas.draw()
        size = self._canvas.get_width_height(physical=True)
        with_opacity = Pictures.frombuffer("RGBA", size, self._canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
        return np.array(with_opacity.convert("RGB"))  # in a third of the time that a slice takes


def fitted(shape_HW: tuple[int, ...], width: float, height: float) -> tuple[float, float]:
    """Return width and height of an image with square pixels that fits into a width and a height, in inches.

    What is so long that its other side could not be seen is stretched across.
    """
    scale = min(width / shape_HW[1], height / shape_HW[0])
    return max(scale * shape_HW[1], min(_THINNEST, width)), max(scale * shape_HW[0], min(_THINNEST, height))


def length_bar(num_columns: int, pixel_size_angstrom: float | None) -> ScaleBar:
    """Return the scale bar of an image, in units of length, or in pixels if their size is unknown."""
    return scale_bar(num_columns, None if pixel_size_angstrom is None else 1e-10 * pixel_size_angstrom)


def angle_bar(num_x: int, pixel_size_angstrom: float | None, wavelength_angstrom: float | None) -> ScaleBar:
    """Return the scale bar of Fourier space: in mrad or 1/Å if that is known, else in pixels."""
    if pixel_size_angstrom is None:
        return scale_bar(num_x, None)
    per_angstrom = 1.0 / (num_x * pixel_size_angstrom)
    if wavelength_angstrom is None:
        return scale_bar(num_x, per_angstrom, "1/Å")
    return scale_bar(num_x, 1e3 * wavelength_angstrom * per_angstrom, "mrad")


def limits_of(values: NDArray[np.floating], least: float, percent: float = 0.5) -> Limits:
    """Return limits that leave out so many per cent of the values at either end.

    Args:
        values: The values; those that are not finite do not count.
        least: How far apart the limits are at least, so that rounding errors are not stretched into a picture.
        percent: How many per cent are left out.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(each) for each in np.percentile(finite, (percent, 100 - percent))) if finite.size else (0.0, 0.0)
    beyond = max(least - (high - low), 0.0) / 2
    return Limits(low - beyond, high + beyond)
