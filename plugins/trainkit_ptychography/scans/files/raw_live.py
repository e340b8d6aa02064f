"""Raw numbers in a file as an `ArrayFile`.

Shapes: N = frames, V, U = rows and columns of a frame.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, guarded_reading
from trainkit_ptychography.scans.files.assembly import read_scan
from trainkit_ptychography.scans.files.numpy_live import array_beside
from trainkit_ptychography.scans.files.on_disk import Header, OnDisk

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.patterns import Stored
    from trainkit_ptychography.scans.scan import Recording


class RawLayout(NamedTuple):
    """How frames lie in a file.

    Attributes:
        frame_shape: Rows and columns of a frame.
        dtype: What a number is.
        byte_order: "little" or "big".
        header_bytes: Bytes before the first frame.
        gap_bytes: Bytes after each frame that are no part of it.
    """

    frame_shape: tuple[int, int]
    dtype: str
    byte_order: str = "little"
    header_bytes: int = 0
    gap_bytes: int = 0

    def numbers(self) -> np.dtype[Any]:
        """Return the dtype of a number."""
        return np.dtype(self.dtype).newbyteorder("<" if self.byte_order == "little" else ">")

    def frame_bytes(self) -> int:
        """Return how many bytes a frame takes, with what follows it."""
        return prod(self.frame_shape) * self.numbers().itemsize + self.gap_bytes


class RawFrames:
    """Frames (N, V, U) of a file, of which only what is indexed is read.

    Args:
        path: The file.
        layout: How they lie in it.
        num: N.
    """

    def __init__(self, path: Path, layout: RawLayout, num: int) -> None:
        self.shape: tuple[int, ...] = (num, *layout.frame_shape)
        self.dtype = layout.numbers()
        self._gap_bytes = layout.gap_bytes
        as_bytes = Header((num, layout.frame_bytes()), False, np.dtype(np.uint8))
        self._bytes_NB = OnDisk(path, layout.header_bytes, as_bytes)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return a part, by a tuple of numbers and slices of step 1."""
        first, *rest = key
        bytes_NB = np.atleast_2d(self._bytes_NB[(first,)])
        counted = bytes_NB.shape[1] - self._gap_bytes
        numbers = np.ascontiguousarray(bytes_NB[:, :counted]).view(self.dtype)
        part: NDArray[Any] = numbers.reshape(-1, *self.shape[1:])[(slice(None), *rest)]
        return part[0] if isinstance(first, int) else part


class RawFile:
    """A file of raw numbers and the ``.npy`` files beside it, as an `ArrayFile`.

    Args:
        path: The file.
        layout: How frames lie in it.

    Raises:
        DataError: It is not there, or its size is not that of whole frames.
    """

    random_access = True

    def __init__(self, path: Path, layout: RawLayout) -> None:
        self.source, self._path, self._layout = str(path), path, layout
        with self.reading():
            size = os.path.getsize(path)
        rows, columns = layout.frame_shape
        frame_bytes = layout.frame_bytes()
        num, left = divmod(size - layout.header_bytes, frame_bytes)
        if size <= layout.header_bytes or left or not num:
            gap = f" and {layout.gap_bytes:,} bytes after it" if layout.gap_bytes else ""
            head = f" after a header of {layout.header_bytes:,}" if layout.header_bytes else ""
            raise DataError(
                f"{path} has {size:,} bytes{head}, which is not a whole number of frames of {frame_bytes:,} bytes "
                f"({rows} × {columns} numbers of {layout.dtype}{gap}): its frames have another shape, dtype, header or "
                "gap, or it was cut off"
            )
        self.num_frames = num

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what goes wrong while reading into a DataError."""
        return guarded_reading(self._path, "raw numbers")

    def stored(self, name: str) -> Stored:
        """Return the frames, by the file's own name, or an ``.npy`` file beside it."""
        if name == self._path.name:
            return RawFrames(self._path, self._layout, self.num_frames)
        return array_beside(self._path, name)

    def array(self, name: str) -> NDArray[Any]:
        """Return an ``.npy`` file beside it."""
        return array_beside(self._path, name)


def read_raw(settings: FileDiffraction, file: RawFile) -> Recording:
    """Read a scan whose patterns are raw numbers; whatever name the settings give them, they are the file's."""
    changed: Any = attrs.evolve(cast(Any, settings), patterns=Path(file.source).name)
    return read_scan(changed, file)
