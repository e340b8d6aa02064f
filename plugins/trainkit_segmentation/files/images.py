"""Reads images and labels of every format for which there is a reader. What is wrong with a file is one sentence."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from trainkit import ComponentError, DataError, RegisteredComponent, bytes_in_words, free_host_memory, registered
from trainkit_segmentation.files.header import Array, Header
from trainkit_segmentation.files.readers.kind import Reader
from trainkit_segmentation.files.stored import StoredImage
from trainkit_segmentation.files.whole_numbers import whole_numbers

_OWN = "trainkit_segmentation."
_HOW_TO_TAKE_NAN = "; if that is outside of the field of view, set data.preprocessing.nan_as_zero = true"


def read_header(path: Path) -> Header:
    """Read a file's header, and compare it with the file's size.

    Raises:
        DataError: The file is missing, of no format that can be read, shorter than its header needs, or needs more
            memory than is free.
    """
    reader = reader_of(path)
    with _guarded(path, reader):
        return _opened(path, reader).header


def read_voxels(path: Path, *, nan_as_zero: bool = False) -> tuple[Header, Array]:
    """Read a whole file.

    Args:
        path: The file, or the folder if several files are one image.
        nan_as_zero: Whether voxels that are NaN are taken as 0, instead of refusing the file.

    Returns:
        The header, and the voxels (C, X, Y, Z): float32 if the file has fractions or is scaled, else its integers.

    Raises:
        DataError: The file cannot be read, or has values that are not finite.
    """
    reader = reader_of(path)
    with _guarded(path, reader):
        stored = _opened(path, reader)
        array = _loaded(stored)
        with np.errstate(all="ignore"):
            array = apply_read_scaling(array, stored.slope, stored.intercept)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what does not fit becomes infinite
                array = array.astype(np.float32, copy=False)
            array = _finite(path, array, nan_as_zero)
    return stored.header, np.moveaxis(array, -1, 0)


class Integers(NamedTuple):
    """What is in a file of labels.

    Attributes:
        header: The header.
        values_CXYZ: The values, of any integer type; one channel, unless each channel is a mask.
        off: How far a value was off a whole number at most, before it was rounded.
    """

    header: Header
    values_CXYZ: Array
    off: float


def read_integers(path: Path) -> Integers:
    """Read a file of labels. Values that are nearly whole, as after an export as fractions, are rounded.

    Raises:
        DataError: The file cannot be read, or has values that are not whole numbers.
    """
    reader = reader_of(path)
    with _guarded(path, reader):
        stored = _opened(path, reader)
        array = _loaded(stored)
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        values, off = whole_numbers(native, stored.slope, stored.intercept)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return Integers(stored.header, np.moveaxis(values, -1, 0), off)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return every file that an image is read from; ``path`` alone, if that cannot be found out."""
    try:
        reader = reader_of(path)
        with _guarded(path, reader):
            return reader.files(path)
    except DataError:  # reported when the image is read
        return (path,)


def readable_endings() -> tuple[str, ...]:
    """Return how the names of files that can be read end, the longest first."""
    endings = {each for reader in _readers()[0].values() for each in reader.endings}
    return tuple(sorted(endings, key=lambda each: (-len(each), each)))


def can_be_read(path: Path) -> bool:
    """Return whether a reader claims a file or folder."""
    return any(reader.claims(path) for reader in _readers()[0].values())


def readers_of_others(paths: Iterable[Path]) -> list[str]:
    """Return the packages, with their versions, whose readers read some files, other than this one."""
    readers, _ = _readers()
    return sorted(
        {
            f"{found.package} {found.version}"
            for found, reader in readers.items()
            if not found.value.startswith(_OWN) and any(reader.claims(path) for path in paths)
        }
    )


def reader_of(path: Path) -> Reader:
    """Return the reader that claims a file.

    Raises:
        DataError: None does, or several do.
    """
    readers, broken = _readers()
    claiming = {found: reader for found, reader in readers.items() if reader.claims(path)}
    if len(claiming) == 1:
        return next(iter(claiming.values()))
    if claiming:
        names = " and ".join(f'"{found.name}" of {found.package}' for found in claiming)
        raise DataError(f"{path}: there are {len(claiming)} readers of such files, {names}: uninstall one")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.is_file():
        endings = ", ".join(sorted(each for reader in readers.values() for each in reader.endings))
        told = f"{path}: no reader knows this format; the names of files that can be read end in {endings}"
    else:
        told = f"{path}: this is no regular file, and no folder that holds one image"
    raise DataError("; ".join([told, *broken]))


def _readers() -> tuple[dict[RegisteredComponent, Reader], list[str]]:
    """Return all readers, and why some cannot be imported."""
    readers, broken = {}, []
    for found in registered(Reader.entry_points):
        try:
            readers[found] = found.load()()
        except ComponentError as error:
            broken.append(str(error))
    return readers, broken


@contextmanager
def _guarded(path: Path, reader: Reader) -> Iterator[None]:
    """Turn whatever a reader raises into one sentence."""
    if not path.is_file() and not path.is_dir():
        what = "this is no regular file" if path.exists() else "there is no such file"
        raise DataError(f"{path}: {what}")
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, EOFError | zlib.error) or "CRC" in str(error):
            raise DataError(f"{path}: the file is truncated or damaged: {_first_line(error)}") from error
        raise DataError(f"{path}: cannot be read as {reader.format}: {_first_line(error)}") from error


def _opened(path: Path, reader: Reader) -> StoredImage:
    stored = reader.open(path)
    # As stored, as float32, and scaled.
    needed = stored.num_voxels * (stored.dtype.itemsize + 4 + (8 if stored.is_scaled else 0))
    if needed > (free := free_host_memory()):
        raise DataError(
            f"{path}: reading it takes {bytes_in_words(needed)} of memory, and {bytes_in_words(free)} are free: "
            "its header is damaged, or the volume is too large for this machine"
        )
    return stored


def _loaded(stored: StoredImage) -> Array:
    array = stored.load()
    expected = (*stored.header.shape, stored.header.channels)
    if array.shape != expected:
        raise DataError(f"{stored.header.path}: the header declares {expected} voxels, the file has {array.shape}")
    return array


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


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
