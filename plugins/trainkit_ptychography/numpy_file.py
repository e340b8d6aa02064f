"""Reads scans out of NumPy files."""

from __future__ import annotations

import bz2
import io
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, did_you_mean
from trainkit_ptychography.arrays import as_patterns, as_points, as_probe
from trainkit_ptychography.damage import reading
from trainkit_ptychography.numpy import NumPyDiffraction
from trainkit_ptychography.scan import Recording, Scan


def read_scan(settings: NumPyDiffraction) -> Recording:
    """Read what the settings name.

    Raises:
        DataError: The file or an array is missing, damaged, or not of the shape that it must have.
    """
    source = str(settings.path)
    wanted = [settings.patterns, settings.positions] + ([] if settings.probe is None else [settings.probe])
    if settings.path.suffix == ".npy":
        places = [settings.path, *(settings.path.parent / name for name in wanted[1:])]
        arrays = [_read_npy_file(place) for place in places]
    else:
        arrays = _read_npz(settings.path, wanted)
    patterns_NYX = as_patterns(arrays[0], f"{source}: {settings.patterns}")
    if settings.values == "amplitude":
        patterns_NYX = np.square(patterns_NYX)
    if settings.zero_frequency == "centre":
        patterns_NYX = np.fft.ifftshift(patterns_NYX, axes=(1, 2))
    scan = Scan(
        positions_N2=as_points(arrays[1], f"{source}: {settings.positions}"),
        source=source,
        pixel_size_angstrom=settings.pixel_size_angstrom,
        wavelength_angstrom=settings.wavelength_angstrom,
        probe_MYX=as_probe(arrays[2], f"{source}: {settings.probe}") if len(arrays) == 3 else None,
    )
    return Recording(patterns_NYX, scan)


def _read_npy_file(path: Path) -> NDArray[Any]:
    with reading(path, "a NumPy file"), path.open("rb") as stream:
        return _read_npy(stream, path.stat().st_size, str(path))


def _read_npz(path: Path, names: list[str]) -> list[NDArray[Any]]:
    with reading(path, "a NumPy archive"):
        packed: IO[bytes] | Path = io.BytesIO(bz2.decompress(path.read_bytes())) if path.suffix == ".bz2" else path
        with zipfile.ZipFile(packed) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            arrays = []
            for name in names:
                if name not in members:
                    known = f"{did_you_mean(name, members)}\nIt holds {', '.join(members)}."
                    raise DataError(f'{path} has no array "{name}"; {known}')
                with archive.open(members[name]) as stream:
                    arrays.append(_read_npy(stream, members[name].file_size, f"{path}: {name}"))
            return arrays


def _read_npy(stream: IO[bytes], size: int, name: str) -> NDArray[Any]:
    """Read one array of numbers from ``size`` bytes.

    The header is looked at first: it may declare more than there is, and NumPy would ask for that much memory.
    """
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = header(stream)
    if dtype.kind not in "iufc":
        raise DataError(f"{name} must hold numbers, it holds {dtype}")
    num_bytes = prod(shape) * dtype.itemsize
    if num_bytes > size:
        raise DataError(f"{name} declares {num_bytes:,} bytes, but only {size:,} are there: the file is damaged")
    return np.frombuffer(stream.read(num_bytes), dtype).reshape(shape, order="F" if fortran_order else "C")
