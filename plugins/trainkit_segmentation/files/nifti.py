"""NIfTI files: what the header says, and the voxels; every way in which a file can be bad is one sentence."""

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
_CLOSE = 0.1  # of a voxel: how far two grids may lie apart and still count as one; headers are rounded to float32


@attrs.frozen
class Header:
    """What a file says of its voxels, without having read them.

    Attributes:
        path: The file.
        shape: (X, Y, Z).
        channels: Length of the fourth axis, 1 where there is none.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        num_bytes: What the voxels take when they are unpacked.
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
    """Read a file's header, and make sure that a packed file has about the length that it should have.

    Raises:
        DataError: It is missing, no NIfTI file, cut off, or not three-dimensional.
    """
    return _header(path, _open(path))


def read_voxels(path: Path) -> tuple[Header, Array]:
    """Read a whole file.

    Returns:
        The header, and the voxels (C, X, Y, Z): float32 where the file has fractions or is scaled, else its integers.

    Raises:
        DataError: The file cannot be read, or has values that are no numbers.
    """
    image = _open(path)
    header = _header(path, image)
    try:
        array = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise DataError(f"{path}: the voxels cannot be read, the file is damaged: {_said(error)}") from error
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
        raise DataError(f"{path}: a label has three dimensions, this has {header.channels} channels")
    values = voxels_CXYZ[0]
    if values.dtype.kind == "f":
        rounded = np.rint(values).astype(np.int64)
        if wrong := int((rounded != values).sum()):
            raise DataError(
                f"{path}: {wrong} voxels of the label are not whole numbers, as {values[rounded != values][0]}"
            )
        values = rounded
    return header, values


def same_grid(one: Header, other: Header) -> str | None:
    """Return in words how two grids differ; None: they are the same to a tenth of a voxel."""
    if one.shape != other.shape:
        return f"{_size(one)} against {_size(other)} voxels"
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(one.shape) - 1
    apart = np.sqrt((((one.affine - other.affine) @ corners.T)[:3] ** 2).sum(axis=0)).max()
    if apart <= _CLOSE * min(one.spacing_mm):
        return None
    return f"corners lie up to {apart:.3g} mm apart (affines differ)"


def _open(path: Path) -> Any:
    try:
        image = nibabel.load(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as NIfTI: {_said(error)}") from error
    return image


def _header(path: Path, image: Any) -> Header:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{path}: expected three dimensions, or four with the channels last, got {image.shape}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {dtype} are no plain numbers")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: the header's affine is unusable (a voxel without size, or no number)")
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.suffix == ".gz":
        _check_length(path, int(image.dataobj.offset) + num_bytes)
    x, y, z = shape[:3]
    return Header(path, (x, y, z), shape[3] if len(shape) == 4 else 1, affine, num_bytes)


def _check_length(path: Path, expected: int) -> None:
    """Hold the unpacked length, which ends a gzip file modulo 2³², against what the header needs."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        length = int.from_bytes(file.read(4), "little")
    if length == expected % 2**32:
        return
    try:  # there may be more behind the voxels, or several gzip members, of which the end tells the last one's length
        with gzip.open(path) as unpacked:
            unpacked.seek(expected)
            found = unpacked.tell()
    except _UNREADABLE as error:
        raise DataError(f"{path}: is cut off or damaged: {_said(error)}") from error
    if found < expected:
        raise DataError(f"{path}: is cut off: the header needs {expected} bytes, there are {found}")


def _size(header: Header) -> str:
    return "×".join(map(str, header.shape))


def _said(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
