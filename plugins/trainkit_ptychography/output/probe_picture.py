"""A picture of the probe: amplitude and phase of its modes, in the plane of the specimen and in Fourier space.

Shapes: M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

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
    angle_bar,
    fitted,
    length_bar,
)

_MOST_MODES = 6
_BESIDE = 2  # modes, for which there is room to show phases beside amplitudes
_GAP, _OVER, _SIDE, _FOR_COLOURS, _TALLEST = 0.12, 0.4, 1.0, 1.0, 10.0  # inches
_BELOW = 0.24  # inches between rows: the labels at the ends of two colour bars need it
_FAINT, _AT_MOST = 0.02, 0.15  # of the largest amplitude of a mode: below it, a phase is not shown
_ABOVE_NOISE = 3.0  # times the median amplitude, which is that of noise where a mode fills less than half of the array
_NO_PHASE = "0.6"  # darker than ±π, brighter than 0


def probe(
    probe_MYX: NDArray[np.complexfloating],
    pixel_size_angstrom: float | None,
    wavelength_angstrom: float | None,
    subtitle: str,
    num_scans: int = 1,
) -> Image:
    """Return a picture of the first six modes with their shares of the power of their scan.

    Args:
        probe_MYX: Complex modes, centred at pixel (Y//2, X//2).
        pixel_size_angstrom: Size of a pixel; None if unknown.
        wavelength_angstrom: For angles in Fourier space; None if unknown.
        subtitle: Of which run it is, and when.
        num_scans: Number of scans that have probes of their own; their modes follow each other.
    """
    powers_M = (np.abs(probe_MYX) ** 2).sum((1, 2))
    powers_SM = powers_M.reshape(num_scans, -1)
    shares_M = (powers_SM / np.maximum(powers_SM.sum(axis=1, keepdims=True), 1e-30)).ravel()
    modes = powers_SM.shape[1]  # of each scan
    shown_MYX = probe_MYX[:_MOST_MODES]
    far_MYX = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(shown_MYX, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    num, (num_y, num_x) = len(shown_MYX), probe_MYX.shape[1:]
    beside = num <= _BESIDE  # phases stand beside amplitudes; with more modes, below them
    columns, rows = (2 * num, 2) if beside else (num, 4)
    room = WIDTH - 2 * MARGIN - _SIDE - (columns - 1) * _GAP - (2 if beside else 1) * _FOR_COLOURS
    width, height = fitted((num_y, num_x), room / columns, _TALLEST / rows)
    bars = (length_bar(num_x, pixel_size_angstrom), angle_bar(num_x, pixel_size_angstrom, wavelength_angstrom))

    hidden = len(probe_MYX) - num
    title = "Probe" if num_scans == 1 else f"Probes of {num_scans} scans"
    title += f", {modes} modes with their shares of the power" if modes > 1 else ""
    frame = Frame(
        HEAD + _OVER + rows * (height + _BELOW) + 2 * FOOT,
        title + (f" (the first {num} are shown)" if hidden else ""),
        subtitle,
    )

    def box(space: int, of_phase: int, mode: int) -> Box:
        row, column = (space, of_phase * num + mode) if beside else (2 * space + of_phase, mode)
        left = MARGIN + _SIDE + column * (width + _GAP) + (of_phase * _FOR_COLOURS if beside else 0.0)
        return Box(left, HEAD + _OVER + row * (height + _BELOW) + space * FOOT, width, height)

    for space, (name, waves_MYX) in enumerate((("specimen", shown_MYX), ("Fourier space", far_MYX))):
        for mode, wave_YX in enumerate(waves_MYX):
            amplitude_YX = np.abs(wave_YX)
            brightest = float(amplitude_YX.max()) or 1.0
            faint = min(max(_FAINT * brightest, _ABOVE_NOISE * float(np.median(amplitude_YX))), _AT_MOST * brightest)
            phase_YX = np.ma.masked_where(amplitude_YX < faint, np.angle(wave_YX))
            amplitudes = frame.image(box(space, 0, mode), amplitude_YX / brightest, cmap="magma", vmin=0, vmax=1)
            turn = {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
            phases = frame.image(box(space, 1, mode), phase_YX, bad=_NO_PHASE, **turn)
            if space == 0 and len(probe_MYX) > 1:
                at = box(0, 0, mode)
                scan = f"scan {mode // modes + 1}\n" if num_scans > 1 else ""
                words = f"{scan}mode {mode % modes + 1}: {100 * shares_M[mode]:.2f} %"
                frame.text(at.left, at.top - 0.08, words, fontsize=10)
        frame.colours(box(space, 0, num - 1), amplitudes, "amplitude / its largest")
        frame.colours(box(space, 1, num - 1), phases, "phase / rad", ticks=[-np.pi, 0, np.pi], format=_in_pi)
        frame.bar(box(space, 0 if beside else 1, 0), num_x, bars[space])
        for of_phase, what in enumerate(["amplitude\nand phase"] if beside else ["amplitude", "phase"]):
            at = box(space, of_phase, 0)
            words = f"{name}\n{what}"
            frame.text(MARGIN + _SIDE - 0.12, at.top + height / 2, words, fontsize=10, ha="right", va="center")
    return frame.pixels()


def _in_pi(value: float, _: object = None) -> str:
    return {-1: "−π", 0: "0", 1: "π"}.get(round(value / np.pi), f"{value:.2g}")
