"""Reads what ptypy's prepared data says about itself into settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.assembly import read_scan
from trainkit_ptychography.scans.files.hdf5_doubts import with_doubts
from trainkit_ptychography.scans.files.hdf5_live import HDF5File

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording

_MOST_CHUNKS = 100_000


def read_ptyd(settings: FileDiffraction, linked: Sequence[Path]) -> Recording:
    """Read a scan; what the settings say takes precedence.

    Raises:
        DataError: The file is missing or damaged, has no chunks, or a chunk is in a file that the recipe does not name.
    """
    file = HDF5File(settings.path, linked=linked)
    with file.reading():
        chunks = _chunks(file)
        changes: dict[str, Any] = {"patterns": tuple(f"{chunk}/data" for chunk in chunks)}
        if settings.positions is None and settings.raster is None and settings.positions_path is None:
            changes |= {"positions": tuple(f"{chunk}/positions" for chunk in chunks), "positions_unit": "m"}
        weights = [f"{chunk}/weights" for chunk in chunks]
        if settings.prepare.mask is None and all(file.first([each]) for each in weights):
            prepare = attrs.evolve(cast(Any, settings.prepare), mask=tuple(weights), mask_marks="good")
            changes["prepare"] = prepare
        changes |= _geometry(settings, file)
        announced = _numbers(file, "meta/num_frames", 1)
        num = sum(file.stored(f"{chunk}/data").shape[0] for chunk in chunks)
    changed: Any = attrs.evolve(cast(Any, settings), **changes)
    recording = with_doubts(read_scan(changed, file), changed, file, look_for_masks=False)
    if announced is None or announced[0] <= num:
        return recording
    said = f"meta/num_frames says {announced[0]:.0f} patterns, but its chunks hold {num}: the last ones are missing"
    return recording.with_doubts([f"{said}, so the file may have been written in part"])


def _chunks(file: HDF5File) -> list[str]:
    """Return the chunks that are there, one after the other from 0: what is between two of them must not be missing."""
    found: list[str] = []
    while len(found) < _MOST_CHUNKS and file.first([f"chunks/{len(found)}/data"]):
        found.append(f"chunks/{len(found)}")
    if not found:
        raise file.missing("has no chunks/0/data, so it is no prepared data of ptypy (.ptyd)")
    numbers = {int(name.split("/")[1]) for name in file.datasets()[0] if name.startswith("chunks/") and _is_chunk(name)}
    beyond = sorted(number for number in numbers if number >= len(found))
    if beyond:
        raise DataError(
            f"{file.source}: chunks/{len(found)} is missing, but chunks/{beyond[0]} is there: it is damaged"
        )
    return found


def _is_chunk(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[1].isdecimal() and len(parts[1]) < 9


def _geometry(settings: FileDiffraction, file: HDF5File) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.energy_kev is None and settings.wavelength_angstrom is None:
        energy_kev = _numbers(file, "meta/energy", 1)
        if energy_kev is not None and energy_kev[0] > 0:
            found |= {"energy_kev": float(energy_kev[0]), "radiation": "photons"}
    if settings.pixel_size_angstrom is None and settings.dk_per_angstrom is None:
        distance, pixel = _numbers(file, "meta/distance", 1), _numbers(file, "meta/psize", 2)
        if settings.detector_distance_m is None and distance is not None and distance[0] > 0:
            found["detector_distance_m"] = float(distance[0])
        if settings.detector_pixel_um is None and pixel is not None and pixel.min() > 0:
            found["detector_pixel_um"] = (float(pixel[0]) * 1e6, float(pixel[1]) * 1e6)
    centre = _numbers(file, "meta/center", 2)
    if settings.zero_frequency == "centre" and centre is not None:
        found["zero_frequency"] = (float(centre[0]), float(centre[1]))
    return found


def _numbers(file: HDF5File, name: str, num: int) -> NDArray[np.float64] | None:
    """Return numbers of the file's meta, one of which stands for all; None: they are not there, or no numbers."""
    if file.first([name]) is None or file.text(name) is not None:
        return None
    values = file.array(name).ravel()
    if values.dtype.kind not in "iuf" or values.size not in (1, num) or not np.isfinite(values).all():
        return None
    return np.broadcast_to(values.astype(np.float64), (num,))
