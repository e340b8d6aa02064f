"""How long a scale bar is, and what stands beside it. Plain numbers; whoever makes a picture draws it."""

from __future__ import annotations

from math import floor, log10
from typing import NamedTuple

_UNITS = ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-10, "Å"))  # in m, the largest first
_SHARE = 0.3  # of the picture's width, at most


class ScaleBar(NamedTuple):
    """A scale bar.

    Attributes:
        pixels: Its length in pixels of the array.
        label: Its length in words: "2 nm", or "20 pixels" if the size of a pixel is unknown.
    """

    pixels: float
    label: str


def scale_bar(width: float, pixel_size: float | None, unit: str = "m") -> ScaleBar:
    """Return the longest bar of 1, 2 or 5 times a power of ten that takes no more than 0.3 of a width.

    Args:
        width: Pixels of the array.
        pixel_size: Size of a pixel; None if unknown.
        unit: Its unit. The bar is labelled in it, and if it is "m" in the decimal unit that suits the length.

    Example:
        >>> scale_bar(200, 0.4e-10).label
        '2 nm'
    """
    if pixel_size is None:
        pixels = max(1.0, _one_two_five(_SHARE * width))
        return ScaleBar(pixels, f"{pixels:g} pixel{'s' if pixels > 1 else ''}")
    length = _one_two_five(_SHARE * width * pixel_size)
    if unit != "m":
        return ScaleBar(length / pixel_size, f"{length:.10g} {unit}")
    size, name = next((each for each in _UNITS if length >= each[0] * (1 - 1e-9)), _UNITS[-1])
    return ScaleBar(length / pixel_size, f"{length / size:.10g} {name}")


def _one_two_five(limit: float) -> float:
    """Return the largest of …, 1, 2, 5, 10, 20, … that is not above a limit, which is positive."""
    power = floor(log10(limit))
    digit = next(each for each in (5, 2, 1) if each <= limit / 10.0**power + 1e-9)
    return float(f"{digit}e{power}")
