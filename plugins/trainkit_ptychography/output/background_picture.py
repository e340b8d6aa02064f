"""The picture of the background that patterns have in common.

Shapes: Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainkit import ScaleBar
from trainkit_ptychography.output.frame import FOOT, HEAD, MARGIN, Box, Frame, Image, fitted, limits_of

_WIDTH, _HEIGHT = 8.0, 7.0  # inches, of the image


def background(counts_YX: NDArray[np.floating], share: float, bar: ScaleBar, subtitle: str) -> Image:
    """Return a picture of the background.

    Args:
        counts_YX: Its counts in each pixel, the middle of the detector at (Y//2, X//2).
        share: Its share of the light of a mean pattern.
        bar: The scale bar of a pattern.
        subtitle: Of which run it is, and when.
    """
    title = f"Background: {100 * share:.3g} % of the light of a pattern"
    width, height = fitted(counts_YX.shape, _WIDTH, _HEIGHT)
    frame = Frame(HEAD + height + FOOT + 0.1, title, subtitle)
    low, high = limits_of(counts_YX, 1e-6 * max(float(counts_YX.max()), 1e-12))
    box = Box(MARGIN, HEAD, width, height)
    shown = frame.image(box, counts_YX, cmap="viridis", vmin=max(low, 0.0), vmax=high)
    frame.bar(box, counts_YX.shape[1], bar)
    frame.colours(box, shown, "counts in a pixel", extend="max")
    return frame.pixels()
