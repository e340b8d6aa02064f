"""A picture of how well patterns fit the geometries that were tried out.

Shapes: O = orientations, C = columns, one for each sign of the defocus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import SAFE_ON_WHITE
from trainkit_ptychography.output.frame import HEAD, MARGIN, WIDTH, Box, Frame, Image

_SIDE, _TOP, _CELLS, _HEIGHT = 1.75, 0.4, 1.6, 3.4  # inches
_FOOT, _BETWEEN = 0.75, 0.75


class Panel(NamedTuple):
    """A curve: misfit over one property.

    Attributes:
        label: The property, with its unit.
        values: Its values.
        misfits: The misfit at each.
        found: The value that was found.
    """

    label: str
    values: Sequence[float]
    misfits: Sequence[float]
    found: float


def calibration_picture(
    misfits_OC: NDArray[np.float64],
    names: Sequence[str],
    columns: Sequence[str],
    panels: Sequence[Panel],
    empty: float,
    title: str,
    subtitle: str,
) -> Image:
    """Return a picture with a table of the orientations in colours, and a curve for each property.

    Args:
        misfits_OC: The misfit of each orientation, for each sign of the defocus.
        names: The orientations.
        columns: The signs.
        panels: The curves.
        empty: The misfit of an empty object, which is drawn as a line.
        title: What was found.
        subtitle: Of which scan.
    """
    frame = Frame(HEAD + _TOP + _HEIGHT + _FOOT, title, subtitle)
    box = Box(MARGIN + _SIDE, HEAD + _TOP, _CELLS, _HEIGHT)
    frame.text(MARGIN, HEAD + 0.02, "misfit of held-out patterns: the scan's axes against the detector's", fontsize=10)
    low, high = float(misfits_OC.min()), max(float(misfits_OC.max()), float(misfits_OC.min()) + 1e-12)
    shown = frame.image(box, misfits_OC, cmap="viridis", vmin=low, vmax=high)
    height, width = box.height / len(names), box.width / len(columns)
    for row, name in enumerate(names):
        middle = box.top + (row + 0.5) * height
        frame.text(box.left - 0.1, middle, name, fontsize=9, ha="right", va="center")
        for column, misfit in enumerate(misfits_OC[row]):
            colour = "white" if misfit < (low + high) / 2 else "black"
            left = box.left + (column + 0.5) * width
            frame.text(left, middle, f"{misfit:.4g}", fontsize=9, ha="center", va="center", color=colour)
    for column, name in enumerate(columns):
        left = box.left + (column + 0.5) * width
        frame.text(left, box.top + box.height + 0.2, name, fontsize=9, ha="center")
    frame.colours(box, shown, "misfit")
    first = box.left + box.width + 1.35 + 0.55
    each_width = (WIDTH - MARGIN - first - _BETWEEN * (len(panels) - 1)) / max(len(panels), 1)
    for number, panel in enumerate(panels):
        axes = frame.axes(Box(first + number * (each_width + _BETWEEN), HEAD + _TOP, each_width, _HEIGHT))
        axes.plot(panel.values, panel.misfits, ".-", color=SAFE_ON_WHITE[0])
        axes.axvline(panel.found, color=SAFE_ON_WHITE[1], linewidth=1.2)
        if empty < 1.5 * max(panel.misfits):
            axes.axhline(empty, color="0.5", linewidth=1, linestyle="--")
        axes.set_title(f"{panel.found:.4g}", fontsize=10, color=SAFE_ON_WHITE[1])
        axes.set_xlabel(panel.label, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return frame.pixels()
