"""Reads a probe from a file.

Shapes: M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, Problem
from trainkit_ptychography.probes.doubts import doubts_of_guess
from trainkit_ptychography.scans.files.arrays import as_probe
from trainkit_ptychography.scans.files.single_array import read_array

if TYPE_CHECKING:
    from trainkit_ptychography.probes.from_file import ProbeFromFile

_SETTING = "model.probe.path"


def read_probe(settings: ProbeFromFile, shape_YX: tuple[int, int]) -> NDArray[np.complexfloating]:
    """Return the modes, complex (M, Y, X), centred at pixel (Y//2, X//2).

    Args:
        settings: The file, and which part of it.
        shape_YX: Rows and columns that the probe must have.

    Raises:
        DataError: The file or the array is missing, damaged, or not of the shape that it must have.
    """
    probe_MYX, where = _modes(settings)
    if probe_MYX.shape[1:] != shape_YX:
        rows, columns = probe_MYX.shape[1:]
        raise DataError(
            f"{where} has {rows} × {columns} pixels, but the patterns have {shape_YX[0]} × {shape_YX[1]}: a probe has "
            "as many pixels as the detector, after the data was cropped or binned"
        )
    if not (np.isfinite(probe_MYX).all() and probe_MYX.any()):
        raise DataError(f"{where} is zero or holds values that are not finite")
    return centred(settings, probe_MYX)


def centred(settings: ProbeFromFile, probe_MYX: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """Return the modes with their middle at pixel (Y//2, X//2)."""
    return np.fft.fftshift(probe_MYX, axes=(1, 2)) if settings.centre == "corner" else probe_MYX


def inspect_probe(settings: ProbeFromFile) -> Iterator[str | Problem]:
    """Yield what the file holds and in which order it is read, and whether that order may be another.

    Raises:
        DataError: As `read_probe` does, but for the detector's shape.
    """
    probe_MYX, where = _modes(settings)
    num, rows, columns = probe_MYX.shape
    order = "the order of its axes is said" if settings.axes else "its axes are taken as (modes, rows, columns)"
    yield from (Problem(each, "path", "warning") for each in doubts_of_guess(centred(settings, probe_MYX), where))
    yield f"guess        {num} mode{'s' if num > 1 else ''} of {rows} × {columns} pixels in {where}; {order}"
    if settings.axes is None and settings.path.suffix not in (".npy", ".npz"):
        from trainkit_ptychography.scans.files.hdf5_live import HDF5File

        file = HDF5File(settings.path, _SETTING)
        with file.reading():
            by_matlab = file.is_matlab(settings.name)
        if by_matlab:
            yield Problem(
                f"{where} was written by Matlab, which reverses the order of axes, so the probe may be transposed: say "
                'it, axes = "mxy" if Matlab held (rows, columns, modes), axes = "myx" if the order is right',
                "path",
                "warning",
            )


def _modes(settings: ProbeFromFile) -> tuple[NDArray[np.complexfloating], str]:
    array, where = read_array(settings.path, settings.name, _SETTING)
    if settings.axes is None and sum(size > 1 for size in array.shape[:-2]) > 1:
        raise DataError(
            f"{where} has the shape {array.shape}: more than one axis before the probe's is not of length 1"
        )
    if array.ndim > 2 and settings.axes is None and array.shape[-1] < min(array.shape[-3:-1]):
        rows, columns, modes = array.shape[-3:]
        raise DataError(
            f"{where} has the shape {array.shape}: this looks like {rows} × {columns} pixels and {modes} modes, but "
            '(modes, rows, columns) is expected; say the order that it has: model.probe.axes = "yxm", or "xym" if '
            "rows and columns are exchanged too"
        )
    return as_probe(array, where, settings.axes), where
