"""Draws docs/ptychography_conventions.png with the functions that reconstruct, so that the picture cannot lie.

python docs/make_ptychography_conventions.py
"""

from __future__ import annotations

from math import radians
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.simulated_live import patterns

SIZE, PIXEL_ANGSTROM = 64, 0.4
WAVELENGTH = electron_wavelength(80.0)


def letter_f() -> np.ndarray:
    """A phase with no symmetry at all, in rad."""
    phase_KL = np.zeros((128, 128))
    phase_KL[44:84, 50:56] = phase_KL[44:50, 50:78] = phase_KL[60:66, 50:70] = 0.8
    return phase_KL


def probe(defocus_angstrom: float, **aberrations: float) -> np.ndarray:
    """What `Aperture` makes of these aberrations."""
    coefficients = Aperture(**aberrations).coefficients(defocus_angstrom)
    return aperture_probe((SIZE, SIZE), PIXEL_ANGSTROM, WAVELENGTH, 25.0, coefficients)


def middle(*probes_YX: np.ndarray) -> np.ndarray:
    """A picture of the middles of some probes, side by side: phase as hue, red for 0, and magnitude as brightness."""
    inner = slice(SIZE // 2 - 16, SIZE // 2 + 16)
    pictures = []
    for probe_YX in probes_YX:
        magnitude_YX = np.abs(probe_YX[inner, inner])
        brightness_YX = np.minimum(magnitude_YX / np.percentile(magnitude_YX, 98.0), 1.0)
        turns_C = np.arange(3) * 2 * np.pi / 3
        hue_YXC = 0.5 + 0.5 * np.cos(np.angle(probe_YX[inner, inner])[:, :, None] - turns_C)
        pictures.append(brightness_YX[:, :, None] * hue_YXC)
    return np.concatenate(pictures, axis=1)


def main() -> None:
    """Draw it."""
    figure = Figure(figsize=(13.0, 8.6), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    phase_KL = letter_f()
    raster_N2 = np.stack(np.meshgrid(np.arange(4) * 12.0, np.arange(5) * 9.0, indexing="ij"), -1).reshape(-1, 2)

    axes = panels[0, 0]
    axes.imshow(phase_KL, cmap="gray", vmin=-0.3)
    points_N2 = raster_N2 + 46.0
    for number, (row, column) in enumerate(points_N2):
        axes.text(column, row, str(number), color="tab:red", ha="center", va="center", fontsize=8)
    axes.set(
        title="object phase and positions 0, 1, 2, … of a raster", xlabel="column (axis 1) →", ylabel="← row (axis 0)"
    )

    axes = panels[0, 1]
    for angle, colour in ((0.0, "0.6"), (20.0, "tab:red")):
        turned_N2 = oriented(raster_N2, False, (), angle)
        for line, part_N2 in enumerate(np.split(turned_N2, 4)):
            label = None if line else f"positions_rotation_deg = {angle:.0f}"
            axes.plot(part_N2[:, 1], part_N2[:, 0], "o-", color=colour, markersize=4, label=label)
    arc = np.radians(np.linspace(0.0, 20.0, 30))
    axes.plot(42 * np.cos(arc), 42 * np.sin(arc), color="black")
    axes.annotate("+", (42 * np.cos(radians(22)), 42 * np.sin(radians(22))), fontsize=16, ha="center", va="center")
    axes.invert_yaxis()
    axes.set(title="a positive rotation: what is right goes down", xlabel="column →", ylabel="← row", aspect="equal")
    axes.legend(loc="upper left", fontsize=8)

    axes = panels[0, 2]
    axes.imshow(middle(probe(60.0), probe(-60.0)))
    axes.set(title="probe: defocus_angstrom = 60  |  −60", xticks=[], yticks=[])

    axes = panels[1, 0]
    axes.imshow(middle(probe(0.0, C12_angstrom=60.0), probe(0.0, C12_angstrom=60.0, phi12_deg=30.0)))
    axes.set(title="probe: C12_angstrom = 60, phi12_deg = 0  |  30", xticks=[], yticks=[])

    corner_YX = patterns(np.exp(1j * phase_KL), probe(60.0), points_N2[7:8])[0]
    for axes, pattern_YX, name, beam in (
        (panels[1, 1], np.fft.fftshift(corner_YX), '"centre"\nbeam at (rows//2, columns//2)', SIZE // 2),
        (panels[1, 2], corner_YX, '"corner"\nbeam at [0, 0], as we compute', 0),
    ):
        axes.imshow(np.sqrt(pattern_YX), cmap="magma")
        axes.plot(beam, beam, "+", color="white", markersize=12)
        axes.set(title=f"pattern 7, zero_frequency = {name}", xlabel="column →", ylabel="← row")

    canvas.draw()
    figure.savefig(Path(__file__).with_name("ptychography_conventions.png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
