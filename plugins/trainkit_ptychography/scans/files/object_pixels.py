"""How large an object pixel is, and how many of them a unit of the positions is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.physics.optics import electron_wavelength, photon_wavelength
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.positions import ANGSTROM


def object_pixels(
    settings: FileDiffraction, frame: tuple[int, ...], shape: tuple[int, int], source: str
) -> tuple[NDArray[np.float64], float | None, float | None]:
    """Return pixels to a unit of the positions (row, column), the object pixel's size in Å, and the wavelength."""
    wavelength = settings.wavelength_angstrom
    if settings.energy_kev is not None:
        of_energy: Callable[[float], float] = (
            electron_wavelength if settings.radiation == "electrons" else photon_wavelength
        )
        wavelength = of_energy(settings.energy_kev)
    # Object pixels along each axis: 1 / (detector pixels · dk), where binning makes dk larger and their number smaller.
    finer_2 = np.array([shape[which] * settings.prepare.bin / frame[which] for which in (0, 1)])
    propagation = settings.detector_propagation
    if propagation.patterns_are_images:
        finer_2 = np.full(2, 1 / settings.prepare.bin)
    sizes_2: NDArray[np.float64] | None = None
    dk_2 = as_pair(settings.dk_per_angstrom)
    pixel_2 = as_pair(settings.detector_pixel_um)
    whole_2: NDArray[np.float64] | None = None
    if settings.detector_distance_m is not None and pixel_2 is not None and wavelength is not None:
        whole_2 = np.array(
            [
                propagation.object_pixel_angstrom(pixel, num, wavelength, settings.detector_distance_m)
                for pixel, num in zip(pixel_2.tolist(), frame, strict=True)
            ]
        )
    elif dk_2 is not None:
        whole_2 = 1.0 / (np.array(frame) * dk_2)
    if settings.pixel_size_angstrom is not None:
        said, images = settings.pixel_size_angstrom, propagation.patterns_are_images
        said_2 = as_pair(said) if images else _said_sizes(said, frame, finer_2, source)
        assert said_2 is not None
        sizes_2 = said_2 / finer_2
    elif whole_2 is not None:
        sizes_2 = whole_2 / finer_2
    if sizes_2 is not None and abs(sizes_2[0] / sizes_2[1] - 1) > 1e-3:
        if propagation.patterns_are_images:
            raise DataError(
                f"{source}: object pixels of {sizes_2[0]:.4g} × {sizes_2[1]:.4g} Å (rows × columns) must be square, so "
                "patterns that are images must have square pixels"
            )
        to = [round(float(each)) for each in sizes_2 * np.array(shape) / sizes_2.min()]
        raise DataError(
            f"{source}: patterns of {shape[0]} × {shape[1]} pixels have object pixels of {sizes_2[0]:.4g} × "
            f"{sizes_2[1]:.4g} Å (rows × columns), which must be square: set prepare.pad = {to}, or prepare.crop"
        )
    size = None if sizes_2 is None else float(sizes_2.mean()) if sizes_2[0] != sizes_2[1] else float(sizes_2[0])
    if settings.unit == "pixels":
        return finer_2, size, wavelength
    if size is None:
        raise DataError(
            f"{source}: positions in {settings.unit} need the size of an object pixel: set "
            "data.pixel_size_angstrom, or data.dk_per_angstrom, or the energy, data.detector_pixel_um and "
            'data.detector_distance_m; or positions_unit = "pixels"'
        )
    return np.full(2, ANGSTROM[settings.unit] / size), size, wavelength


def as_pair(value: float | tuple[float, float] | None) -> NDArray[np.float64] | None:
    """Return (rows, columns) of one number for both or of a pair; None: it is not given."""
    return None if value is None else np.array(value if isinstance(value, tuple) else (value, value))


def _said_sizes(
    said: float | tuple[float, float], frame: tuple[int, ...], finer_2: NDArray[np.float64], source: str
) -> NDArray[np.float64]:
    """Return the object pixel's size for whole frames, along both axes.

    Equal detector pixels give the longer side the smaller object pixel, so one number for a rectangular detector is
    that of one side only: the one which neither a crop nor padding changes.
    """
    if isinstance(said, tuple) or frame[0] == frame[1]:
        pair = as_pair(said)
        assert pair is not None
        return pair
    kept = [which for which in (0, 1) if abs(finer_2[which] - 1) < 1e-9]
    if len(kept) == 1:
        side = frame[kept[0]]
        return np.array([said * side / each for each in frame])
    rows, columns = (f"{said:g} × {said * frame[0] / frame[1]:.4g}", f"{said * frame[1] / frame[0]:.4g} × {said:g}")
    longest = max(frame)
    raise DataError(
        f"{source}: pixel_size_angstrom = {said:g} is not enough for a detector of {frame[0]} × {frame[1]} pixels: if "
        f"its pixels are square, those of the object are not, but {rows} Å (rows × columns) or {columns} Å. Give "
        f"dk_per_angstrom instead, or both, pixel_size_angstrom = [rows, columns]; and make patterns square, "
        f"prepare.pad = [{longest}, {longest}], or prepare.crop: then one number is that of the side that is "
        "left as it is"
    )
