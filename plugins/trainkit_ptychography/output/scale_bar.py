"""How long a scale bar is, and what stands beside it. Plain numbers; `pictures` draws it."""

from __future__ import annotations

from math import floor, log10
from typing import NamedTuple

_UNITS = ((1e4, "µm"), (10.0, "nm"), (1.0, "Å"))  # in Å, the largest first
_SHARE = 0.3  # of the picture's width, at most


class Bar(NamedTuple):
    """A scale bar.

    Attributes:
        pixels: Its length in pixels of the array.
        label: Its length in words: "2 nm", or "20 pixels" if the size of a pixel is unknown.
    """

    pixels: float
    label: str


def scale_bar(width: int, pixel_size_angstrom: float | None) -> Bar:
    """Return the longest bar of 1, 2 or 5 times a power of ten that takes no more than 0.3 of a width.

    Args:
        width: Pixels of the array.
        pixel_size_angstrom: Size of a pixel; None if unknown.

    Example:
        >>> scale_bar(200, 0.4)
        Bar(pixels=50.0, label='2 nm')
    """
    if pixel_size_angstrom is None:
        pixels = max(1.0, _one_two_five(_SHARE * width))
        return Bar(pixels, f"{pixels:g} pixel{'s' if pixels > 1 else ''}")
    length = _one_two_five(_SHARE * width * pixel_size_angstrom)
    size, unit = next((each for each in _UNITS if length >= each[0]), _UNITS[-1])
    return Bar(length / pixel_size_angstrom, f"{length / size:g} {unit}")


def _one_two_five(limit: float) -> float:
    """Return the largest of …, 1, 2, 5, 10, 20, … that is not above a limit, which is positive."""
    power = floor(log10(limit))
    digit = next(each for each in (5, 2, 1) if each <= limit / 10.0**power + 1e-9)
    return float(f"{digit}e{power}")
