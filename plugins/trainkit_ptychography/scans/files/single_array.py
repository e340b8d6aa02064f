"""Reads one array out of a file that holds a probe, an object or a vacuum pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from trainkit_ptychography.scans.files.numpy_live import NumPyFile


class FoundArray(NamedTuple):
    """An array, and where it was found, as messages call it."""

    values: NDArray[Any]
    where: str


def read_array(path: Path, name: str, setting: str) -> FoundArray:
    """Return an array out of a NumPy file, a NumPy archive or an HDF5 file.

    Args:
        path: The file.
        name: Which array; ignored for ``.npy``.
        setting: The setting that names the file, for messages.

    Raises:
        DataError: The file or the array is missing or damaged.
    """
    if path.suffix in (".npy", ".npz"):
        archive = NumPyFile(path, setting)
        with archive.reading():
            if path.suffix == ".npy":
                return FoundArray(archive.array(path.name), str(path))
            return FoundArray(archive.array(name), f"{path}: {name}")
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    file = HDF5File(path, setting)
    with file.reading():
        return FoundArray(file.array(name), f"{path}: {name}")
