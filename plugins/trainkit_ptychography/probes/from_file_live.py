"""Reads a probe from a file.

Shapes: M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, Problem, did_you_mean, guarded_reading
from trainkit_ptychography.scans.files.arrays import as_probe

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
    if settings.modes is not None:
        if settings.modes > len(probe_MYX):
            raise DataError(f"{where} has {len(probe_MYX)} modes; model.probe.modes = {settings.modes} asks for more")
        probe_MYX = probe_MYX[: settings.modes]
    return np.fft.fftshift(probe_MYX, axes=(1, 2)) if settings.centre == "corner" else probe_MYX


def inspect_probe(settings: ProbeFromFile) -> Iterator[str | Problem]:
    """Yield what the file holds and in which order it is read, and whether that order may be another.

    Raises:
        DataError: As `read_probe` does, but for the detector's shape.
    """
    probe_MYX, where = _modes(settings)
    num, rows, columns = probe_MYX.shape
    order = "the order of its axes is said" if settings.axes else "its axes are taken as (modes, rows, columns)"
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
    array, where = _array(settings)
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


def _array(settings: ProbeFromFile) -> tuple[NDArray[Any], str]:
    path = settings.path
    if path.suffix == ".npy":
        with guarded_reading(path, "a NumPy file", _SETTING):
            return np.load(path, allow_pickle=False), str(path)
    where = f"{path}: {settings.name}"
    if path.suffix == ".npz":
        with guarded_reading(path, "a NumPy archive", _SETTING), np.load(path, allow_pickle=False) as archive:
            if settings.name not in archive:
                known = f"{did_you_mean(settings.name, archive)}\nIt holds {', '.join(archive)}."
                raise DataError(f'{path} has no array "{settings.name}"; {known}')
            return archive[settings.name], where
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    file = HDF5File(path, _SETTING)
    with file.reading():
        return file.array(settings.name), where
