"""A file that is open for reading: its header is known, and its voxels are read when they are asked for."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from trainkit import DataError, bytes_in_words
from trainkit_segmentation.files.header import Array, Header

MOST_UNPACKED_BY_DEFLATE = 1032  # bytes for each byte of a gzip file; bzip2 and zstandard have no such limit
_MOST_AFTER = 1 << 20  # bytes that a packed file may hold after the voxels
_BLOCK = 1 << 20


@attrs.frozen
class StoredImage:
    """What a reader makes of a file.

    Attributes:
        header: The header.
        dtype: The type in which voxels are stored: integers or real numbers of any byte order.
        load: Reads the voxels (X, Y, Z, C) as they are stored.
        slope: Intensities and label values are ``slope * stored + intercept``; None: 1.
        intercept: None: 0.
    """

    header: Header
    dtype: np.dtype[Any]
    load: Callable[[], Array]
    slope: float | None = None
    intercept: float | None = None

    @property
    def num_voxels(self) -> int:
        """Number of voxels, each channel counted."""
        x, y, z = self.header.shape
        return x * y * z * self.header.channels

    @property
    def is_scaled(self) -> bool:
        """Whether stored voxels are not the intensities."""
        return (self.slope, self.intercept) not in ((None, None), (1.0, 0.0))


class Stream(Protocol):
    """Something that bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        ...


def check_type(path: Path, dtype: np.dtype[Any]) -> None:
    """Check that voxels are numbers that can be trained on.

    Raises:
        DataError: They are not.
    """
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels must be integers or real numbers, got {dtype}")


def check_size(path: Path, needed: int, most_unpacked: int | None) -> None:
    """Check that a file can hold what its header declares.

    Args:
        path: The file.
        needed: Bytes that it must hold.
        most_unpacked: Bytes that one byte of the file can stand for; None: any number.

    Raises:
        DataError: It cannot.
    """
    size = path.stat().st_size
    if most_unpacked is not None and size * most_unpacked < needed:
        there = f"there are {size}" if most_unpacked == 1 else f"{size} packed bytes cannot hold them"
        raise DataError(f"{path}: the file is truncated, or its header damaged: it needs {needed} bytes, {there}")


def read_exactly(path: Path, stream: Stream, num_bytes: int, before: int = 0, *, to_the_end: bool) -> Array:
    """Read a number of bytes.

    Args:
        path: The file, for messages.
        stream: What they are read from.
        num_bytes: How many.
        before: How many were read before, for messages.
        to_the_end: Whether a packed file is read to its end, where its checksum is.

    Returns:
        The bytes, as uint8.

    Raises:
        DataError: There are fewer, or many more.
    """
    content = np.empty(num_bytes, np.uint8)
    done = 0
    while done < num_bytes:
        block = stream.read(min(_BLOCK, num_bytes - done))
        if not block:
            raise DataError(
                f"{path}: the file is truncated: the header needs {before + num_bytes} bytes, there are {before + done}"
            )
        content[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    if to_the_end and len(stream.read(_MOST_AFTER)) == _MOST_AFTER:
        raise DataError(
            f"{path}: more is packed in it than its header declares ({bytes_in_words(num_bytes)}): the header is "
            "damaged, or the file is something else"
        )
    return content


class Inflated:
    """Unpacks a stream of the zlib format, block by block.

    Args:
        packed: The packed bytes.
    """

    def __init__(self, packed: Stream) -> None:
        self._packed = packed
        self._unpacking = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` unpacked bytes; none at the end."""
        while not self._unpacking.eof:
            waiting = self._unpacking.unconsumed_tail
            block = waiting or self._packed.read(_BLOCK)
            unpacked = self._unpacking.decompress(block, size)
            if unpacked:
                return unpacked
            if not block:
                raise EOFError("the packed stream ends early")
        return b""


def unpacked(packed: Any, how: str) -> Stream:
    """Return a stream that unpacks another.

    Args:
        packed: The packed bytes, a binary file at the place where they begin.
        how: "raw", "gzip", "bzip2" or "zlib".
    """
    if how == "gzip":
        return gzip.GzipFile(fileobj=packed, mode="rb")
    if how == "bzip2":
        return bz2.BZ2File(packed)
    if how == "zlib":
        return Inflated(packed)
    raw: Stream = packed
    return raw


MOST_UNPACKED = {"raw": 1, "gzip": MOST_UNPACKED_BY_DEFLATE, "zlib": MOST_UNPACKED_BY_DEFLATE, "bzip2": None}
