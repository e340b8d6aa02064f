"""Draws a reliability diagram: how often a confidence is right, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainkit_segmentation.calibration.reliability import Reliability
from trainkit_segmentation.calibration.report import AFTER, ALL, BEFORE, NEAR, Measures

_STYLES = {BEFORE: ("#D55E00", "o", "--"), AFTER: ("#0072B2", "s", "-")}  # of Okabe and Ito, safe for the colour-blind
_INCHES = (9.0, 5.6)


def draw_reliability(measures: Measures, boundary_mm: float, temperature: float, path: Path) -> None:
    """Draw a reliability diagram of the voxels near boundaries, and one of all, into a PNG file.

    A point is a bin: its accuracy above its mean confidence. Points below the diagonal are too confident. Below it is
    the share of voxels in each bin.

    Args:
        measures: What was measured.
        boundary_mm: Up to which distance a voxel is near a boundary.
        temperature: The temperature.
        path: The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=120)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.1, top=0.92, hspace=0.1, wspace=0.2)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1), squeeze=False)
    for column, (region, title) in enumerate(((NEAR, f"within {boundary_mm:g} mm of a boundary"), (ALL, "everywhere"))):
        upper, lower = axes[:, column]
        upper.plot([0, 1], [0, 1], color="grey", linewidth=1, label="as often right as confident")
        for variant, (colour, marker, line) in _STYLES.items():
            found = measures[region, variant]
            what = variant if variant == BEFORE else f"temperature {temperature:.2f}"
            label = f"{what}: ECE {found.ece:.3f}, NLL {found.nll:.3f}"
            _points(upper, found, color=colour, marker=marker, linestyle=line, label=label)
            _shares(lower, found, color=colour, linestyle=line)
        upper.set_title(title, fontsize=10)
        upper.set_ylabel("share of voxels that are right")
        upper.set_ylim(0, 1.02)
        upper.legend(fontsize=8, loc="upper left")
        lower.set_yscale("log")
        lower.set_ylabel("share of voxels")
        lower.set_xlabel("confidence in the most likely label")
        lower.set_xlim(0, 1)
        for each in (upper, lower):
            each.grid(alpha=0.3)
    figure.savefig(path, format="png")


def _points(axes: Any, found: Reliability, **style: Any) -> None:
    some = found.number_B > 0
    axes.plot(found.confidence_B[some] / found.number_B[some], found.right_B[some] / found.number_B[some], **style)


def _shares(axes: Any, found: Reliability, **style: Any) -> None:
    shares_B = found.number_B / max(found.number, 1)
    axes.stairs(np.where(shares_B > 0, shares_B, np.nan), np.linspace(0, 1, len(shares_B) + 1), **style)
