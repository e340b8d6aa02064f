"""Reads one array out of a file that holds a probe, an object or a vacuum pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, did_you_mean, guarded_reading


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
    if path.suffix == ".npy":
        with guarded_reading(path, "a NumPy file", setting):
            return FoundArray(np.load(path, allow_pickle=False), str(path))
    where = f"{path}: {name}"
    if path.suffix == ".npz":
        with guarded_reading(path, "a NumPy archive", setting), np.load(path, allow_pickle=False) as archive:
            if name not in archive:
                known = f"{did_you_mean(name, archive)}\nIt holds {', '.join(archive)}."
                raise DataError(f'{path} has no array "{name}"; {known}')
            return FoundArray(archive[name], where)
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    file = HDF5File(path, setting)
    with file.reading():
        return FoundArray(file.array(name), where)
