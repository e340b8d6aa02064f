"""Colours that lie on the pixels of a figure as they are: matplotlib interpolates its own images even at their size."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from numpy.typing import NDArray


class PixelsInPlace(Artist):
    """An artist that puts colours over the pixels of a figure.

    Args:
        colours_HWC: (height, width, 4) uint8, red, green, blue and opacity.
        left: The first column.
        bottom: Number of the figure's rows that are below.
    """

    def __init__(self, colours_HWC: NDArray[np.uint8], left: int, bottom: int) -> None:
        super().__init__()
        self._colours_HWC, self._left, self._bottom = colours_HWC, left, bottom

    def draw(self, renderer: Any) -> None:
        """Put them there."""
        how = renderer.new_gc()
        renderer.draw_image(how, self._left, self._bottom, self._colours_HWC[::-1])
        how.restore()
