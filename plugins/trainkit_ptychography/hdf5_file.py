"""Reads scans out of HDF5 files, and trusts no file.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, did_you_mean
from trainkit_ptychography.arrays import as_patterns, as_points, as_probe
from trainkit_ptychography.damage import reading
from trainkit_ptychography.hdf5 import HDF5Diffraction
from trainkit_ptychography.optics import electron_wavelength
from trainkit_ptychography.scan import Recording, Scan, Truth

_ANGSTROM = {"angstrom": 1.0, "nm": 10.0, "m": 1e10}
_MOST_LISTED = 30
_BEST_COMPRESSION = 1100  # deflate makes at best one byte of 1032


def read_scan(settings: HDF5Diffraction) -> Recording:
    """Read what the settings name.

    Raises:
        DataError: The file or a dataset is missing, unsafe, or not of the shape that it must have.
    """
    source = str(settings.path)
    with reading(settings.path, "an HDF5 file"), h5py.File(settings.path, "r") as file:
        patterns_NYX = as_patterns(read(file, settings.patterns), f"{source}: {settings.patterns}")
        size = settings.pixel_size_angstrom
        if size is None and settings.dk_per_angstrom is not None:
            rows, columns = patterns_NYX.shape[1:]
            if rows != columns:
                raise DataError(
                    f"{source}: a detector of {rows} × {columns} pixels has two object pixel sizes for one "
                    "dk_per_angstrom; that is not supported yet: crop the patterns to a square"
                )
            size = 1.0 / (rows * settings.dk_per_angstrom)
        points = {
            name: as_points(read(file, name), f"{source}: {name}") * _pixels(settings, size)
            for name in (settings.positions, settings.truth_positions)
            if name is not None
        }
        probe_MYX = None
        if settings.probe is not None:
            probe_MYX = as_probe(read(file, settings.probe), f"{source}: {settings.probe}")
        truth = None
        if settings.truth_phase is not None and settings.truth_positions is not None:
            phase_KL = read(file, settings.truth_phase)
            if phase_KL.ndim != 2:
                raise DataError(f"{source}: {settings.truth_phase} must be 2-D, it has the shape {phase_KL.shape}")
            truth = Truth(phase_KL=phase_KL, positions_N2=points[settings.truth_positions])
    if settings.values == "amplitude":
        np.square(patterns_NYX, out=patterns_NYX)
    if settings.zero_frequency == "centre":
        patterns_NYX = np.fft.ifftshift(patterns_NYX, axes=(1, 2))
    wavelength = settings.wavelength_angstrom
    if settings.energy_kev is not None:
        wavelength = electron_wavelength(settings.energy_kev)
    scan = Scan(
        positions_N2=points[settings.positions],
        source=source,
        pixel_size_angstrom=size,
        wavelength_angstrom=wavelength,
        semiangle_mrad=settings.semiangle_mrad,
        defocus_angstrom=settings.defocus_angstrom,
        probe_MYX=probe_MYX,
        truth=truth,
    )
    return Recording(patterns_NYX, scan)


def read(file: h5py.File, name: str) -> NDArray[Any]:
    """Read a dataset of numbers, after it was found harmless.

    Raises:
        DataError: It is missing (lists those there are), a link, stored elsewhere, or declared larger than it can be.
    """
    dataset = _follow(file, name)
    where = f'{file.filename}: dataset "{name}"'
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{where} keeps its values in other files, which is refused; copy it into one file (h5repack)")
    if dataset.dtype.kind not in "iufc":
        raise DataError(f"{where} must hold numbers, it holds {dataset.dtype}")
    declared, stored = prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > _BEST_COMPRESSION * stored:
        raise DataError(
            f"{where} declares {declared:,} bytes ({_by(dataset.shape)} of {dataset.dtype}), but the file holds only "
            f"{stored:,} for it: it is damaged, unfinished, or made to do harm"
        )
    values: NDArray[Any] = dataset[()]
    return values


def _follow(file: h5py.File, name: str) -> h5py.Dataset:
    """Walk to a dataset along hard links alone, which cannot lead out of the file."""
    at: Any = file
    for step in (parts := [part for part in name.split("/") if part]):
        link = at.get(step, getlink=True) if isinstance(at, h5py.Group) and step in _names(at) else None
        if link is None:
            found = _datasets(file)
            raise DataError(
                f'{file.filename} has no dataset "{name}"; {did_you_mean("/".join(parts), found)}\n{_list(found)}'
            )
        if not isinstance(link, h5py.HardLink):
            raise DataError(
                f'{file.filename}: "{name}" leads over a soft or external link ("{step}"), which is refused; name the '
                "dataset itself"
            )
        at = at[step]
    if not isinstance(at, h5py.Dataset):
        raise DataError(f'{file.filename}: "{name}" is a group, not a dataset.\n{_list(_datasets(file))}')
    return at


def _names(group: h5py.Group) -> list[str]:
    return list(group.keys())


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Return the datasets of a file and their shapes; visiting follows no soft or external link."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.shape

    file.visititems(note)
    return found


def _list(found: dict[str, tuple[int, ...]]) -> str:
    lines = [f"  {name} {shape}" for name, shape in list(found.items())[:_MOST_LISTED]]
    if len(found) > _MOST_LISTED:
        lines.append(f"  … and {len(found) - _MOST_LISTED} more")
    return "\n".join(["The datasets are:", *lines]) if lines else "The file has no datasets."


def _pixels(settings: HDF5Diffraction, size: float | None) -> float:
    """Return how many pixels one unit of the positions is."""
    if settings.positions_unit == "pixels":
        return 1.0
    if size is None:
        raise DataError(f"positions in {settings.positions_unit} need data.pixel_size_angstrom or data.dk_per_angstrom")
    return _ANGSTROM[settings.positions_unit] / size


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
