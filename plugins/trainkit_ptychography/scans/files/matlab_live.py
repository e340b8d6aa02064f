"""Reads arrays from MATLAB's files of level 5, none of which is trusted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from trainkit import (
    DataError,
    bytes_in_words,
    did_you_mean,
    free_host_memory,
    guarded_reading,
    shape_in_words,
    without_controls,
)
from trainkit_ptychography.scans.files.assembly import read_scan
from trainkit_ptychography.scans.files.limits import refuse_one_value
from trainkit_ptychography.scans.files.trial_process import survives

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.patterns import Stored
    from trainkit_ptychography.scans.scan import Recording

_CLASSES = {"double": 8, "single": 4, "logical": 1}
_CLASSES |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
_MOST_LISTED, _MOST_ELEMENTS = 30, 10_000
_COMPRESSED = 15
_BEST_COMPRESSION = 1100  # deflate makes at best one byte of 1032
_SECONDS_TO_LIST = 2.0  # of computing, in a process of its own; a first piece of zeros alone takes half a second
_LEAST_SPEED = 1e7  # packed bytes a second that are unpacked at least
_PIECE = 2**20


def read_level_5(settings: FileDiffraction) -> Recording:
    """Read a scan.

    Raises:
        DataError: The file is missing or damaged, or has no such arrays; or the recipe does not say the order of axes.
    """
    file = MATFile(settings.path)
    if settings.pattern_axes is None:
        raise DataError(
            f'{settings.path}: say the order of its axes: pattern_axes = "yxn" if MATLAB held (rows, columns, points), '
            '"nyx" if it held (points, rows, columns), "yxrc" or "rcyx" of a raster'
        )
    if settings.probe is not None and settings.probe_axes is None and len(file.shape(settings.probe)) > 2:
        raise DataError(
            f'{settings.path}: say the order of the axes of {settings.probe}: probe_axes = "yxm" if MATLAB held (rows, '
            'columns, modes), "myx" if it held (modes, rows, columns)'
        )
    return read_scan(settings, file)


class MATFile:
    """A file of level 5, as an `ArrayFile`; arrays are read into memory.

    Args:
        path: The file.

    Raises:
        DataError: It is not there, or is no such file.
    """

    random_access = False

    def __init__(self, path: Path) -> None:
        self.source, self._path = str(path), path
        self._read: dict[str, NDArray[Any]] = {}
        with self.reading():
            with path.open("rb") as file:
                head = file.read(128)
            if head[:10] != b"MATLAB 5.0" or head[126:128] not in (b"IM", b"MI"):
                raise DataError(f"{path} (data.path) is no MATLAB file of level 5 or 7.3: it begins with {head[:10]!r}")
            self._order = "little" if head[126:128] == b"IM" else "big"
            if not survives(lambda: scipy.io.whosmat(str(path)), _SECONDS_TO_LIST):
                raise DataError(f"{path} is damaged, or made to do harm: listing its arrays does not come to an end")
            self._held = {name: (tuple(shape), kind) for name, shape, kind in scipy.io.whosmat(str(path))}

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        return guarded_reading(self._path, "a MATLAB file")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array.

        Raises:
            DataError: There is none of this name.
        """
        return self._known(name)[0]

    def largest(self) -> str | None:
        """Return the largest array of numbers with three axes or more, as patterns have; None: there is none."""
        likely = {
            name: prod(shape) for name, (shape, kind) in self._held.items() if len(shape) > 2 and kind in _CLASSES
        }
        return max(likely, key=lambda name: likely[name], default=None)

    def stored(self, name: str) -> Stored:
        """Return an array."""
        return self.array(name)

    def array(self, name: str) -> NDArray[Any]:
        """Return an array.

        Raises:
            DataError: There is none of this name (lists those there are), or it is not safe to read.
        """
        if name not in self._read:
            shape, kind = self._known(name)
            where = f"{self.source}: {without_controls(name)}"
            if kind not in _CLASSES:
                raise DataError(f"{where} must hold numbers, it is of MATLAB's class {without_controls(kind)}")
            self._check(name, where, shape, _CLASSES[kind])
            with self.reading():
                seconds = _SECONDS_TO_LIST + self._path.stat().st_size / _LEAST_SPEED
                if not survives(lambda: scipy.io.loadmat(str(self._path), variable_names=[name]), seconds):
                    raise DataError(f"{where} is damaged, or made to do harm: SciPy crashes, or does not end, on it")
                self._read[name] = np.asarray(scipy.io.loadmat(str(self._path), variable_names=[name])[name])
        return self._read[name]

    def _known(self, name: str) -> tuple[tuple[int, ...], str]:
        if name in self._held:
            return self._held[name]
        listed = [f"  {without_controls(each)} {shape}" for each, (shape, _) in list(self._held.items())[:_MOST_LISTED]]
        near = without_controls(did_you_mean(name, self._held))
        raise DataError(
            "\n".join([f'{self.source} has no array "{without_controls(name)}"; {near}\nIt holds:', *listed])
        )

    def _check(self, name: str, where: str, shape: tuple[int, ...], item_bytes: int) -> None:
        size, values = self._path.stat().st_size, prod(shape)
        if min(shape, default=0) < 0 or values > _BEST_COMPRESSION * size:  # numbers may be stored in one byte each
            raise DataError(
                f"{where} declares {values:,} numbers ({shape_in_words(shape)}), more than a file of {size:,} bytes "
                "can hold: it is damaged, or made to do harm"
            )
        needed, free = 2 * values * item_bytes, free_host_memory()
        if needed > free:
            raise DataError(
                f"{where} takes {bytes_in_words(needed)} while it is read, but only {bytes_in_words(free)} of memory "
                "are free; save it with '-v7.3', which can be streamed"
            )
        place = list(self._held).index(name)
        elements = list(self._elements())
        if place < len(elements) and elements[place][0] == _COMPRESSED:
            _, at, packed = elements[place]
            refuse_one_value(where, values * item_bytes, packed, lambda: self._beginning(at, packed))

    def _elements(self) -> Iterator[tuple[int, int, int]]:
        """Yield the type of each of the file's elements, where it begins, and how long it is."""
        size, at = self._path.stat().st_size, 128
        with self._path.open("rb") as file:
            for _ in range(_MOST_ELEMENTS):
                file.seek(at)
                tag = file.read(8)
                if len(tag) < 8:
                    return
                kind, length = (int.from_bytes(part, self._order) for part in (tag[:4], tag[4:]))  # type: ignore[arg-type]
                yield kind, at + 8, min(length, size - at - 8)
                at += 8 + length

    def _beginning(self, at: int, packed: int) -> Iterator[NDArray[Any]]:
        """Yield the first values of a packed array, as bytes."""
        unpacker = zlib.decompressobj()
        with self._path.open("rb") as file:
            file.seek(at)
            content = file.read(min(packed, 4 * _PIECE))
        unpacker.decompress(content, 2**12)  # past the array's name and shape
        for _ in range(4):
            yield np.frombuffer(unpacker.decompress(unpacker.unconsumed_tail, _PIECE), np.uint8)
