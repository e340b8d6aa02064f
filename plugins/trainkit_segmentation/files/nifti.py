"""NIfTI files: header and voxels. Whatever is wrong with a file is reported in one sentence.

What a header declares is compared with the size of the file and with the free memory before voxels are read, and hardly
more is unpacked than it declares.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import Opener
from nibabel.volumeutils import apply_read_scaling

from trainkit import DataError, bytes_in_words, free_host_memory
from trainkit_segmentation.files.whole_numbers import whole_numbers

Array = np.ndarray[Any, Any]

_CLOSE = 0.1  # voxels: grids that are at most this far apart count as the same; headers are rounded to float32
_KINDS: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}  # by the size of the header
_MOST_UNPACKED = {".gz": 1032, ".nii": 1}  # bytes for each byte of the file; bzip2 and zstandard have no such limit
_MOST_BEFORE = 1 << 26  # bytes of extensions between header and voxels
_MOST_AFTER = 1 << 20  # bytes that a packed file may hold after the voxels
_BLOCK = 1 << 20
_HOW_TO_TAKE_NAN = "; if that is outside of the field of view, set data.preprocessing.nan_as_zero = true"
_NO_FORM = (
    "the header has neither qform nor sform, so where its axes point is a guess (left, anterior, superior); write the "
    "right orientation into it"
)
_SMALLEST_MM, _LARGEST_MM = 1e-6, 1e5
_WORTH_TELLING = 30  # nibabel's level of a header's fault that it cannot tell how to correct


@attrs.frozen
class Header:
    """The header of a file.

    Attributes:
        path: The file.
        shape: (X, Y, Z).
        channels: Length of the fourth axis, 1 if there is none.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        num_bytes: Size of the unpacked voxels.
        corrections: Entries of the header that are not allowed, and what is taken instead.
        open_question: What the header leaves open, or contradicts, about where its axes point; None: nothing.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int
    affine: Array = attrs.field(eq=False)
    num_bytes: int
    corrections: tuple[str, ...] = ()
    open_question: str | None = None

    @property
    def lacks_geometry(self) -> bool:
        """Whether the header looks as if the tool that wrote it knew nothing of orientation and origin."""
        turned = self.affine[:3, :3] - np.diag(np.diag(self.affine[:3, :3]))
        return self.open_question == _NO_FORM or not (turned.any() or self.affine[:3, 3].any())

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)


def read_header(path: Path) -> Header:
    """Read a file's header, and compare it with the file's size.

    Raises:
        DataError: The file is missing, not NIfTI, shorter than its header needs, not three-dimensional, or needs more
            memory than is free.
    """
    with _opened(path) as file:
        return _stored(path, file).header


def read_voxels(path: Path, *, nan_as_zero: bool = False) -> tuple[Header, Array]:
    """Read a whole file.

    Args:
        path: The file.
        nan_as_zero: Whether voxels that are NaN are taken as 0, instead of refusing the file.

    Returns:
        The header, and the voxels (C, X, Y, Z): float32 if the file has fractions or is scaled, else its integers.

    Raises:
        DataError: The file cannot be read, or has values that are not finite.
    """
    with _opened(path) as file:
        stored = _stored(path, file)
        array = _voxels(path, file, stored)
        header = stored.header
        with np.errstate(all="ignore"):
            array = apply_read_scaling(array, stored.slope, stored.intercept)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what does not fit becomes infinite
                array = array.astype(np.float32, copy=False)
            array = _finite(path, array, nan_as_zero)
    array = array.reshape((*header.shape, header.channels))
    return header, np.moveaxis(array, -1, 0)


class Integers(NamedTuple):
    """What is in a file of labels.

    Attributes:
        header: The header.
        values_XYZ: The values, of any integer type.
        off: How far a value was off a whole number at most, before it was rounded.
    """

    header: Header
    values_XYZ: Array
    off: float


def read_integers(path: Path) -> Integers:
    """Read a file of labels. Values that are nearly whole, as after an export as fractions, are rounded.

    Raises:
        DataError: The file cannot be read, has several channels, or values that are not whole numbers.
    """
    with _opened(path) as file:
        stored = _stored(path, file)
        if (channels := stored.header.channels) != 1:
            raise DataError(f"{path}: a label must have three dimensions, but this file has {channels} channels")
        array = _voxels(path, file, stored)
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        values, off = whole_numbers(native, stored.slope, stored.intercept)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return Integers(stored.header, values.reshape(stored.header.shape), off)


def grid_difference(one: Header, other: Header) -> str | None:
    """Return how two grids differ, in words; None if they agree to a tenth of a voxel."""
    if one.shape != other.shape:
        return f"{_size(one)} and {_size(other)} voxels"
    apart = _corners_apart(one.affine, other.affine, one.shape)
    if apart <= _CLOSE * min(one.spacing_mm):
        return None
    return f"corners are up to {apart:.3g} mm apart (affines differ)"


def _corners_apart(affine: Array, other: Array, shape: Sequence[int]) -> float:
    """Return the largest distance in mm between the corners of two grids of one shape."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(shape) - 1
    return float(np.sqrt((((affine - other) @ corners.T)[:3] ** 2).sum(axis=0)).max())


class _Stored(NamedTuple):
    """How voxels are stored in a file."""

    header: Header
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float | None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, unpacked if its name says that it is packed; turn whatever a parser raises into one sentence."""
    if not path.is_file():
        what = "this is no regular file" if path.exists() else "there is no such file"
        raise DataError(f"{path}: {what}")
    try:
        with Opener(str(path)) as file:
            yield file
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, EOFError | zlib.error) or "CRC" in str(error):
            raise DataError(f"{path}: the file is truncated or damaged: {_first_line(error)}") from error
        raise DataError(f"{path}: cannot be read as NIfTI: {_first_line(error)}") from error


def _stored(path: Path, file: Any) -> _Stored:
    """Read and check a header."""
    block = file.read(540)
    size = int.from_bytes(block[:4], "little")
    size = size if size in _KINDS else int.from_bytes(block[:4], "big")
    if size not in _KINDS or len(block) < size:
        misnamed = path.suffix.lower() == ".nii" and block[:2] == b"\x1f\x8b"
        packed = " (it is packed, but its name does not end in .gz)" if misnamed else ""
        raise DataError(f"{path}: cannot be read as NIfTI: it does not begin with such a header{packed}")
    raw = _KINDS[size](block[:size], check=False)
    if raw["magic"].item() == raw.pair_magic:
        raise DataError(f"{path}: header and voxels are in two files (.hdr and .img); convert them to one .nii file")
    if raw["magic"].item() != raw.single_magic:
        raise DataError(f"{path}: cannot be read as NIfTI: the header lacks the mark of the format")
    faults = _Faults()
    with np.errstate(all="ignore"):
        raw.check_fix(logger=faults)
        affine = np.asarray(raw.get_best_affine(), dtype=np.float64)
        shape = _shape(path, raw.get_data_shape())
        dtype = raw.get_data_dtype()
        start = float(raw["vox_offset"])
        question = _open_question(raw, shape)
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels must be integers or real numbers, got {dtype}")
    _check_affine(path, affine)
    if not (size + 4 <= start <= _MOST_BEFORE and start == int(start)):
        raise DataError(f"{path}: the header is damaged: the voxels cannot begin at byte {start:g}")
    slope, intercept = raw.get_slope_inter()
    num_bytes = math.prod(shape) * dtype.itemsize
    _check_size(path, int(start) + num_bytes)
    _check_memory(path, math.prod(shape), dtype, (slope, intercept) not in ((None, None), (1.0, 0.0)))
    x, y, z = shape[:3]
    channels = shape[3] if len(shape) == 4 else 1
    header = Header(path, (x, y, z), channels, affine, num_bytes, tuple(faults.told), question)
    return _Stored(header, shape, dtype, int(start), slope, intercept)


def _open_question(raw: Any, shape: tuple[int, ...]) -> str | None:
    """Return what a header leaves open, or contradicts, about where its axes point."""
    if raw["qform_code"] <= 0 and raw["sform_code"] <= 0:
        return _NO_FORM
    if raw["qform_code"] <= 0 or raw["sform_code"] <= 0:
        return None
    sform, qform = raw.get_sform(), raw.get_qform()
    apart = _corners_apart(sform, qform, shape[:3])
    if apart <= _CLOSE * np.sqrt((sform[:3, :3] ** 2).sum(axis=0)).min():
        return None
    return f"qform and sform of the header disagree by up to {apart:.2g} mm; the sform is taken"


class _Faults:
    """Collects what nibabel corrects in a header, instead of writing it to the terminal."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def log(self, level: int, message: str) -> None:
        """Take in a message."""
        if level >= _WORTH_TELLING and "SPM" not in message:
            self.told.append(message)


def _shape(path: Path, declared: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in declared)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{path}: expected three dimensions, or four with the channels last, got {tuple(declared)}")
    return shape


def _check_affine(path: Path, affine: Array) -> None:
    if np.isfinite(affine).all():
        with np.errstate(all="ignore"):
            sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
            flat = not abs(np.linalg.det(affine[:3, :3] / np.maximum(sizes, np.finfo(float).tiny))) > 1e-6
        if sizes.min() >= _SMALLEST_MM and sizes.max() <= _LARGEST_MM and not flat:
            return
    raise DataError(
        f"{path}: the header's affine is unusable: a voxel has no size, or one beyond {_SMALLEST_MM:g} to "
        f"{_LARGEST_MM:g} mm, or a value is not finite"
    )


def _check_size(path: Path, needed: int) -> None:
    """Check that a file can hold what its header declares."""
    size = path.stat().st_size
    most = _MOST_UNPACKED.get(path.suffix.lower())
    if most is not None and size * most < needed:
        there = f"there are {size}" if most == 1 else f"{size} packed bytes cannot hold them"
        raise DataError(f"{path}: the file is truncated, or its header damaged: it needs {needed} bytes, {there}")


def _check_memory(path: Path, voxels: int, dtype: np.dtype[Any], scaled: bool) -> None:
    needed = voxels * (dtype.itemsize + 4 + (8 if scaled else 0))  # as stored, as float32, and scaled
    if needed > (free := free_host_memory()):
        raise DataError(
            f"{path}: reading it takes {bytes_in_words(needed)} of memory, and {bytes_in_words(free)} are free: "
            "its header is damaged, or the volume is too large for this machine"
        )


def _voxels(path: Path, file: Any, stored: _Stored) -> Array:
    """Read the voxels as they are stored; of a packed file, to its end, where its checksum is."""
    file.seek(stored.offset)
    content = np.empty(stored.header.num_bytes, np.uint8)
    view, done = memoryview(content.data), 0
    while done < len(content):
        count = file.readinto(view[done : done + _BLOCK])
        if not count:
            needed = stored.offset + len(content)
            raise DataError(
                f"{path}: the file is truncated: the header needs {needed} bytes, there are {stored.offset + done}"
            )
        done += count
    if path.suffix.lower() != ".nii" and len(file.read(_MOST_AFTER)) == _MOST_AFTER:
        raise DataError(
            f"{path}: more is packed in it than its header declares ({bytes_in_words(len(content))}): the header is "
            "damaged, or the file is something else"
        )
    return content.view(stored.dtype).reshape(stored.shape, order="F")


def _finite(path: Path, array: Array, nan_as_zero: bool) -> Array:
    """Return an array without NaN, and refuse what is infinite."""
    finite = np.isfinite(array)
    if finite.all():
        return array
    nan = np.isnan(array)
    if infinite := int(array.size - finite.sum() - nan.sum()):
        raise DataError(f"{path}: {infinite} voxels are infinite, or beyond the range of 32-bit numbers")
    if not nan_as_zero:
        raise DataError(f"{path}: {int(nan.sum())} of {nan.size} voxels are NaN{_HOW_TO_TAKE_NAN}")
    return np.where(nan, np.float32(0), array)


def _size(header: Header) -> str:
    return "×".join(map(str, header.shape))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
