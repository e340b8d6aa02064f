"""Pictures of the object: phase, amplitude, both in one, slices, and a section along the beam.

Contrast is set by the pixels that were lit, so that the margin around the scan has no say.

Shapes: S = slices, H, W = rows and columns of what is shown.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.output.frame import (
    FOOT,
    HEAD,
    MARGIN,
    WIDTH,
    Box,
    Frame,
    Image,
    Limits,
    fitted,
    length_bar,
    limits_of,
)

_TALLEST = 9.0  # inches, of an image
_FOR_COLOURS = 1.25  # inches to the right of an image
_MOST_SLICES = 12
_LEAST_HEIGHT = 1.0  # inches, of a section
_FLAT = 1e-5  # an amplitude that varies less is that of an object that cannot absorb
_LEAST = 1e-3  # rad, or share of the amplitude of vacuum: what varies less is not stretched over all colours
# Blue, light grey, orange: they stay apart for all kinds of colour vision (Okabe and Ito).
_LOW, _MIDDLE, _HIGH = np.array([[40, 150, 255], [225, 225, 225], [255, 150, 20]]) / 255.0


def phase(
    phase_HW: NDArray[np.floating], lit_HW: NDArray[np.bool_], pixel_size_angstrom: float | None, subtitle: str
) -> Image:
    """Return a picture of the phase.

    Args:
        phase_HW: The phase in rad.
        lit_HW: Which pixels set the contrast.
        pixel_size_angstrom: Size of a pixel, for the scale bar; None: it is in pixels.
        subtitle: Of which run it is, and when.
    """
    limits = limits_of(_of(phase_HW, lit_HW), _LEAST)
    return _map(phase_HW, limits, pixel_size_angstrom, "phase / rad", "Phase", subtitle)


def amplitude(
    amplitude_HW: NDArray[np.floating], lit_HW: NDArray[np.bool_], pixel_size_angstrom: float | None, subtitle: str
) -> Image | None:
    """Return a picture of the amplitude; None if it is the same everywhere. Arguments as for `phase`."""
    seen = _of(amplitude_HW, lit_HW)
    if float(np.ptp(seen)) < _FLAT:
        return None
    label = "amplitude (1: vacuum)"
    return _map(amplitude_HW, limits_of(seen, _LEAST), pixel_size_angstrom, label, "Amplitude", subtitle)


def both(
    phase_HW: NDArray[np.floating],
    amplitude_HW: NDArray[np.floating],
    lit_HW: NDArray[np.bool_],
    pixel_size_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return a picture of the complex transmission: phase as colour, amplitude as brightness, black where it is 0.

    Colours are stretched over the phases that occur where the object was lit, so that weak phases can be read. Other
    arguments as for `phase`.
    """
    phases, amplitudes = _of(phase_HW, lit_HW), _of(amplitude_HW, lit_HW)
    shown = limits_of(phases, _LEAST)
    full = float(np.percentile(amplitudes, 99.5)) or 1.0

    width, height = fitted(phase_HW.shape, WIDTH - 2 * MARGIN - 2.6, _TALLEST)
    frame = Frame(HEAD + height + FOOT, "Complex transmission", subtitle)
    box = Box(MARGIN, HEAD, width, height)
    frame.image(box, _coloured(phase_HW, amplitude_HW / full, shown))
    frame.bar(box, phase_HW.shape[1], length_bar(phase_HW.shape[1], pixel_size_angstrom))

    legend = Box(box.left + width + 0.85, HEAD + 0.25, 1.5, 1.5)
    axes = frame.axes(legend, 0.45)
    along, up = np.linspace(*shown, 64), np.linspace(0.0, 1.0, 64)
    table_HWC = _coloured(np.repeat(along[None], 64, axis=0), np.repeat(up[:, None], 64, axis=1), shown)
    axes.imshow(table_HWC, origin="lower", aspect="auto", extent=(*shown, 0.0, full))
    axes.set_xlabel("phase / rad", fontsize=11)
    axes.set_ylabel("amplitude (1: vacuum)", fontsize=11)
    axes.locator_params(axis="x", nbins=3)
    return frame.pixels()


def slices(
    phase_SHW: NDArray[np.floating],
    lit_HW: NDArray[np.bool_],
    pixel_size_angstrom: float | None,
    spacing_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return a picture of the phases of up to twelve slices, evenly chosen, with one scale of colours for all.

    Args:
        phase_SHW: Phase of each slice in rad, in the order in which the wave passes through them.
        lit_HW: Which pixels set the contrast.
        pixel_size_angstrom: Size of a pixel; None if unknown.
        spacing_angstrom: Distance from one slice to the next; None if unknown.
        subtitle: Of which run it is, and when.
    """
    num = len(phase_SHW)
    shown_S = np.unique(np.linspace(0, num - 1, min(num, _MOST_SLICES)).round().astype(int))
    limits = limits_of(phase_SHW[:, lit_HW] if lit_HW.any() else phase_SHW, _LEAST)
    in_row = min(len(shown_S), 4)
    rows = ceil(len(shown_S) / in_row)
    gap, over = 0.15, 0.3
    room = (WIDTH - 2 * MARGIN - _FOR_COLOURS - (in_row - 1) * gap) / in_row
    width, height = fitted(phase_SHW.shape[1:], room, max(_TALLEST / rows, 2.0))
    title = "Phase of the slices" + (f" ({len(shown_S)} of {num} are shown)" if len(shown_S) < num else "")
    frame = Frame(HEAD + rows * (height + over) + FOOT, title, subtitle)
    for place, number in enumerate(shown_S):
        row, column = divmod(place, in_row)
        box = Box(MARGIN + column * (width + gap), HEAD + over + row * (height + over), width, height)
        shown = frame.image(box, phase_SHW[number], cmap="gray", vmin=limits.low, vmax=limits.high)
        depth = "" if spacing_angstrom is None else f", {(number + 0.5) * spacing_angstrom:.3g} Å deep"
        frame.text(box.left, box.top - 0.08, f"slice {number + 1} of {num}{depth}", fontsize=10)
    first = Box(MARGIN, HEAD + over, in_row * (width + gap) - gap, rows * (height + over) - over)
    frame.colours(first, shown, "phase of a slice / rad", extend="both")
    low = Box(MARGIN, first.top, width, first.height)
    frame.bar(low, phase_SHW.shape[2], length_bar(phase_SHW.shape[2], pixel_size_angstrom))
    return frame.pixels()


def depth(
    phase_SHW: NDArray[np.floating],
    lit_HW: NDArray[np.bool_],
    pixel_size_angstrom: float | None,
    spacing_angstrom: float | None,
    subtitle: str,
) -> Image:
    """Return a picture of two sections along the beam, through the row and the column whose phases vary most.

    The beam comes from above. Arguments as for `slices`.
    """
    seen_SHW = np.where(lit_HW, phase_SHW, np.nan)
    of_rows, of_columns = (_variation(seen_SHW, axis) for axis in (2, 1))
    row, column = int(of_rows.argmax()), int(of_columns.argmax())
    limits = limits_of(phase_SHW[:, lit_HW] if lit_HW.any() else phase_SHW, _LEAST)
    wide = WIDTH - 2 * MARGIN - _FOR_COLOURS - 0.55
    known = pixel_size_angstrom is not None and spacing_angstrom is not None
    between, sections = 0.95, []
    for values_SL, name in ((phase_SHW[:, row], f"row {row}"), (phase_SHW[:, :, column], f"column {column}")):
        length = values_SL.shape[1]
        pixels = len(values_SL) * (spacing_angstrom / pixel_size_angstrom if known else 1.0)  # type: ignore[operator]
        sections.append((values_SL, name, min(max(wide * pixels / length, _LEAST_HEIGHT), 4.0), length))
    whole = sum(each[2] + between for each in sections)
    frame = Frame(HEAD + whole, "Sections along the beam", subtitle)
    top = HEAD + 0.3
    for values_SL, name, height, length in sections:
        box = Box(MARGIN + 0.55, top, wide, height)
        deep = len(values_SL) * (spacing_angstrom or 1.0)
        axes = frame.axes(box, 0.5, xticks=[])
        axes.locator_params(axis="y", nbins=6, integer=spacing_angstrom is None)
        shown = axes.imshow(
            values_SL, cmap="gray", vmin=limits.low, vmax=limits.high, extent=(0, length, deep, 0), aspect="auto"
        )
        axes.set_ylabel("depth / Å" if spacing_angstrom is not None else "slice", fontsize=11)
        frame.text(box.left, top - 0.08, f"through {name} of the picture of the phase", fontsize=10)
        frame.bar(box, length, length_bar(length, pixel_size_angstrom))
        frame.colours(box, shown, "phase of a slice / rad", extend="both")
        top += height + between
    return frame.pixels()


def _variation(seen_SHW: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """Return the variance of the phases along a line of the picture and in depth; 0 where nothing was lit."""
    known = np.isfinite(seen_SHW)
    num = known.sum(axis=(0, axis))
    mean = np.where(known, seen_SHW, 0.0).sum(axis=(0, axis)) / np.maximum(num, 1)
    square = (np.where(known, seen_SHW, 0.0) ** 2).sum(axis=(0, axis)) / np.maximum(num, 1)
    few = num < 0.5 * num.max()  # a line that was lit at one end alone says little
    variance: NDArray[np.float64] = np.where(few, 0.0, square - mean**2)
    return variance


def _map(
    values_HW: NDArray[np.floating],
    limits: Limits,
    pixel_size_angstrom: float | None,
    label: str,
    title: str,
    subtitle: str,
) -> Image:
    width, height = fitted(values_HW.shape, WIDTH - 2 * MARGIN - _FOR_COLOURS, _TALLEST)
    frame = Frame(HEAD + height + FOOT, title, subtitle)
    box = Box(MARGIN, HEAD, width, height)
    shown = frame.image(box, values_HW, cmap="gray", vmin=limits.low, vmax=limits.high)
    frame.bar(box, values_HW.shape[1], length_bar(values_HW.shape[1], pixel_size_angstrom))
    frame.colours(box, shown, label, extend="both")
    return frame.pixels()


def _of(values_HW: NDArray[np.floating], lit_HW: NDArray[np.bool_]) -> NDArray[Any]:
    return values_HW[lit_HW] if lit_HW.any() else values_HW


def _coloured(
    phase_HW: NDArray[np.floating], brightness_HW: NDArray[np.floating], limits: Limits
) -> NDArray[np.float64]:
    place_HW1 = np.clip((phase_HW - limits.low) / (limits.high - limits.low), 0.0, 1.0)[:, :, None]
    lower_HWC = _LOW + (_MIDDLE - _LOW) * np.minimum(2 * place_HW1, 1.0)
    colour_HWC = lower_HWC + (_HIGH - _MIDDLE) * np.maximum(2 * place_HW1 - 1.0, 0.0)
    image_HWC: NDArray[np.float64] = colour_HWC * np.clip(brightness_HW, 0.0, 1.0)[:, :, None]
    return image_HWC
