"""A picture of a Fourier ring correlation, with the two phases and their difference.

Shapes: R = rings, H, W = rows and columns of the part that was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import SAFE_ON_WHITE
from trainkit_ptychography.output.frame import (
    FOOT,
    HEAD,
    MARGIN,
    WIDTH,
    Box,
    Frame,
    Image,
    fitted,
    length_bar,
    limits_of,
)

_CHART = 6.6  # inches across
_OVER, _BESIDE, _HIGHEST = 0.3, 1.1, 2.0  # inches
_LEAST = 1e-3  # rad


class Curve(NamedTuple):
    """A correlation and its thresholds.

    Attributes:
        frequency_R: In 1/Å, or per pixel.
        correlation_R: The correlation.
        limits: Name -> threshold.
        with_truth: The correlation of the mean of both halves with the truth, as the halves let expect it, and as it
            is; None: the truth is not known.
    """

    frequency_R: NDArray[np.float64]
    correlation_R: NDArray[np.float64]
    limits: Mapping[str, NDArray[np.float64]]
    with_truth: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def resolution(
    curve: Curve,
    periods: Mapping[str, float | None],
    phases: tuple[NDArray[np.floating], NDArray[np.floating]],
    pixel_size_angstrom: float | None,
    title: str,
    subtitle: str,
) -> Image:
    """Return a picture of a correlation over spatial frequency, of the phases of both halves, and of their difference.

    Args:
        curve: The correlation.
        periods: Name of a threshold -> the period at which the correlation falls below it; None: at none.
        phases: Phase of either half in rad, aligned with each other.
        pixel_size_angstrom: Size of a pixel; None if unknown.
        title: What was compared.
        subtitle: Of which run it is.
    """
    unit = "pixels" if pixel_size_angstrom is None else "Å"
    width, height = fitted(phases[0].shape, WIDTH - 3 * MARGIN - 0.7 - _CHART - _BESIDE - 0.1, _HIGHEST)
    whole = 3 * (height + _OVER) + 2 * 0.12
    frame = Frame(HEAD + whole + FOOT + 0.15, title, subtitle)
    axes = frame.axes(Box(MARGIN + 0.6, HEAD + _OVER, _CHART, whole - _OVER - 0.15))
    axes.axhline(0.0, color="0.8", linewidth=1)
    style: dict[str, Any] = {"color": SAFE_ON_WHITE[0], "label": "between the halves", "zorder": 3}
    axes.plot(curve.frequency_R, curve.correlation_R, ".-", **style)
    if curve.with_truth is not None:
        names = ("mean of both with the truth, expected", "mean of both with the truth")
        for values_R, label, line in zip(curve.with_truth, names, (":", ".-"), strict=True):
            axes.plot(curve.frequency_R, values_R, line, color=SAFE_ON_WHITE[4], label=label)
    for (name, limit_R), colour, line in zip(curve.limits.items(), SAFE_ON_WHITE[1:], ("-", "--"), strict=False):
        period = periods.get(name)
        found = ": no crossing" if period is None else f": {period:.3g} {unit}"
        axes.plot(curve.frequency_R, limit_R, line, color=colour, linewidth=1.2, label=f"{name}{found}")
        if period is not None:
            at = 1.0 / period
            axes.plot([at], [np.interp(at, curve.frequency_R, limit_R)], "o", color=colour, markersize=8, zorder=4)
    axes.set_xlim(0, curve.frequency_R[-1] * 1.02)
    axes.set_ylim(min(-0.1, float(curve.correlation_R.min()) - 0.05), 1.05)
    axes.set_xlabel(f"spatial frequency / {'1/Å' if unit == 'Å' else 'per pixel'}", fontsize=11)
    axes.set_ylabel("Fourier ring correlation", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=11, loc="lower left")

    left = MARGIN + 0.6 + _CHART + MARGIN + 0.1
    difference_HW = np.angle(np.exp(1j * (phases[0] - phases[1])))
    limits = limits_of(np.concatenate([each.ravel() for each in phases]), _LEAST)
    edge = max(float(np.percentile(np.abs(difference_HW), 99.5)), _LEAST)
    shown: tuple[tuple[str, NDArray[np.floating], dict[str, Any]], ...] = (
        ("half 1", phases[0], {"cmap": "gray", "vmin": limits.low, "vmax": limits.high}),
        ("half 2", phases[1], {"cmap": "gray", "vmin": limits.low, "vmax": limits.high}),
        ("half 1 − half 2", difference_HW, {"cmap": "RdBu_r", "vmin": -edge, "vmax": edge}),
    )
    for place, (name, values_HW, style) in enumerate(shown):
        box = Box(left, HEAD + _OVER + place * (height + _OVER + 0.12), width, height)
        image = frame.image(box, values_HW, **style)
        frame.text(box.left, box.top - 0.08, name, fontsize=10)
        frame.colours(box, image, "phase / rad", extend="both")
    frame.bar(box, phases[0].shape[1], length_bar(phases[0].shape[1], pixel_size_angstrom))
    return frame.pixels()
