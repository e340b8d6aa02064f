"""NIfTI files: header and voxels. Whatever is wrong with a file is reported in one sentence."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import attrs
import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from trainkit import DataError

Array = np.ndarray[Any, Any]

_UNREADABLE = (ImageFileError, OSError, EOFError, ValueError, TypeError, zlib.error, MemoryError)
_CLOSE = 0.1  # voxels: grids that are at most this far apart count as the same; headers are rounded to float32


@attrs.frozen
class Header:
    """The header of a file.

    Attributes:
        path: The file.
        shape: (X, Y, Z).
        channels: Length of the fourth axis, 1 if there is none.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        num_bytes: Size of the unpacked voxels.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int
    affine: Array = attrs.field(eq=False)
    num_bytes: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)


def read_header(path: Path) -> Header:
    """Read a file's header, and check that a packed file is long enough.

    Raises:
        DataError: The file is missing, not NIfTI, truncated, or not three-dimensional.
    """
    return _header(path, _open(path))


def read_voxels(path: Path) -> tuple[Header, Array]:
    """Read a whole file.

    Returns:
        The header, and the voxels (C, X, Y, Z): float32 if the file has fractions or is scaled, else its integers.

    Raises:
        DataError: The file cannot be read, or has values that are not finite.
    """
    image = _open(path)
    header = _header(path, image)
    try:
        array = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise DataError(f"{path}: the voxels cannot be read, the file is damaged: {_first_line(error)}") from error
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
        if wrong := int(array.size - np.isfinite(array).sum()):
            raise DataError(f"{path}: {wrong} voxels are NaN or infinite")
    array = array.reshape((*header.shape, header.channels))
    return header, np.moveaxis(array, -1, 0)


def read_integers(path: Path) -> tuple[Header, Array]:
    """Read a file of labels.

    Returns:
        The header, and the values (X, Y, Z) as integers.

    Raises:
        DataError: The file cannot be read, has several channels, or values that are not whole numbers.
    """
    header, voxels_CXYZ = read_voxels(path)
    if header.channels != 1:
        raise DataError(f"{path}: a label must have three dimensions, but this file has {header.channels} channels")
    values = voxels_CXYZ[0]
    if values.dtype.kind == "f":
        rounded = np.rint(values).astype(np.int64)
        if wrong := int((rounded != values).sum()):
            raise DataError(
                f"{path}: {wrong} voxels of the label are not whole numbers, for example {values[rounded != values][0]}"
            )
        values = rounded
    return header, values


def grid_difference(one: Header, other: Header) -> str | None:
    """Return how two grids differ, in words; None if they agree to a tenth of a voxel."""
    if one.shape != other.shape:
        return f"{_size(one)} and {_size(other)} voxels"
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(one.shape) - 1
    apart = np.sqrt((((one.affine - other.affine) @ corners.T)[:3] ** 2).sum(axis=0)).max()
    if apart <= _CLOSE * min(one.spacing_mm):
        return None
    return f"corners are up to {apart:.3g} mm apart (affines differ)"


def _open(path: Path) -> Any:
    try:
        image = nibabel.load(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as NIfTI: {_first_line(error)}") from error
    return image


def _header(path: Path, image: Any) -> Header:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{path}: expected three dimensions, or four with the channels last, got {image.shape}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels must be integers or real numbers, got {dtype}")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: the header's affine is unusable: a voxel has no size, or a value is not finite")
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.suffix == ".gz":
        _check_length(path, int(image.dataobj.offset) + num_bytes)
    x, y, z = shape[:3]
    return Header(path, (x, y, z), shape[3] if len(shape) == 4 else 1, affine, num_bytes)


def _check_length(path: Path, expected: int) -> None:
    """Compare the unpacked length, which a gzip file ends with (modulo 2³²), with what the header needs."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        length = int.from_bytes(file.read(4), "little")
    if length == expected % 2**32:
        return
    try:  # more may follow the voxels, or there are several gzip members and the file ends with the last one's length
        with gzip.open(path) as unpacked:
            unpacked.seek(expected)
            found = unpacked.tell()
    except _UNREADABLE as error:
        raise DataError(f"{path}: the file is truncated or damaged: {_first_line(error)}") from error
    if found < expected:
        raise DataError(f"{path}: the file is truncated: the header needs {expected} bytes, there are {found}")


def _size(header: Header) -> str:
    return "×".join(map(str, header.shape))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
