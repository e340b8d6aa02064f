"""An array that lies in one stretch of a file, of which only what is asked for is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


class Header(NamedTuple):
    """What an array in a file says about itself.

    Attributes:
        shape: Shape of the array.
        fortran_order: Whether its first index runs fastest in the file.
        dtype: Dtype of its values.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


class OnDisk:
    """An array in C order within a file; nothing is mapped into memory.

    The file is opened for each read, because a scan can lie in more files than a process may have open. It must stay
    as it is meanwhile.

    Args:
        path: The file.
        offset: Where the values begin.
        header: Shape, order and dtype.
    """

    def __init__(self, path: Path, offset: int, header: Header) -> None:
        self._path, self._offset = path, offset
        self.shape, self.dtype = header.shape, header.dtype
        self._version = _version(path.stat())

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return a part, by numbers and slices of step 1.

        Raises:
            DataError: The file is gone, has changed, or ends before it.
        """
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (len(self.shape) - len(key))
        # Up to the first axis of which more than one is chosen, a part is one stretch of the file.
        first, places = 0, 0
        for size, chosen in zip(self.shape, key, strict=True):
            start, stop = (chosen, chosen + 1) if isinstance(chosen, int) else chosen.indices(size)[:2]
            places = places * size + start
            first += 1
            if stop - start != 1:
                break
        rest = prod(self.shape[first:])
        part = np.empty((*(1,) * (first - 1), max(stop - start, 0), *self.shape[first:]), self.dtype)
        with self._opened() as file:
            self._fill(_bytes_of(part), file, places * rest)
        inner = tuple(0 if isinstance(each, int) else slice(None) for each in key[:first])
        found: NDArray[Any] = part[inner + tuple(key[first:])]
        return found

    def stretches(self, numbers_B: NDArray[np.int64], axes: int) -> NDArray[Any]:
        """Return what lies behind the first axes at some places (B, …), each by a read of its own.

        Args:
            numbers_B: The places, counted as if the first axes were one.
            axes: How many axes these are.

        Raises:
            DataError: The file is gone, has changed, or ends before one.
        """
        found = np.empty((len(numbers_B), *self.shape[axes:]), self.dtype)
        size = prod(self.shape[axes:])
        waiting, num_bytes = _bytes_of(found), size * self.dtype.itemsize
        with self._opened() as file:
            for place, number in enumerate(numbers_B.tolist()):
                self._fill(waiting[place * num_bytes : (place + 1) * num_bytes], file, number * size)
        return found

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{self._path} can no longer be read: {error.strerror}") from error
        try:
            if _version(os.fstat(file)) != self._version:
                raise DataError(f"{self._path} was changed while it was in use: what was read before is not valid")
            yield file
        finally:
            os.close(file)

    def _fill(self, waiting: memoryview, file: int, place: int) -> None:
        """Read bytes from a place of the array on."""
        offset = self._offset + place * self.dtype.itemsize
        while len(waiting):
            num = os.preadv(file, [waiting], offset)
            if num == 0:
                raise DataError(f"{self._path} ends too early; it was cut off, or changed while it was read")
            waiting, offset = waiting[num:], offset + num


def _bytes_of(values: NDArray[Any]) -> memoryview:
    """Return the memory of a whole array."""
    return values.reshape(-1).view(np.uint8).data


def _version(of: os.stat_result) -> tuple[int, int]:
    return of.st_size, of.st_mtime_ns
