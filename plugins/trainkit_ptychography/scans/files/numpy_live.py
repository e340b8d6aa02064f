"""Arrays out of NumPy files, trusting no file."""

from __future__ import annotations

import bz2
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, did_you_mean, free_host_memory, guarded_reading

_UNPACKED_AT_ONCE = 2**22  # bytes


class Header(NamedTuple):
    """What an array in a file says of itself.

    Attributes:
        shape: Of the array.
        fortran_order: Whether its first index runs fastest in the file.
        dtype: Of its values.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


class OnDisk:
    """An array in C order within a file, of which only what is indexed is read; nothing is mapped into memory.

    Args:
        path: The file.
        offset: Where its values begin.
        header: What it is.
    """

    def __init__(self, path: Path, offset: int, header: Header) -> None:
        self._path, self._offset = path, offset
        self.shape, self.dtype = header.shape, header.dtype

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return a part, by a tuple of numbers and slices of step 1."""
        key = tuple(key) + (slice(None),) * (len(self.shape) - len(key))
        # Up to the first axis of which more than one is chosen, a part is one stretch of the file.
        first, places = 0, 0
        for size, chosen in zip(self.shape, key, strict=True):
            start, stop = (chosen, chosen + 1) if isinstance(chosen, int) else chosen.indices(size)[:2]
            places = places * size + start
            first += 1
            if stop - start != 1:
                break
        rest = prod(self.shape[first:])
        num = (stop - start) * rest
        with self._path.open("rb") as file:
            file.seek(self._offset + places * rest * self.dtype.itemsize)
            values = np.fromfile(file, self.dtype, num)
        if len(values) < num:
            raise DataError(f"{self._path} ends too early; it was cut off, or changed while it was read")
        part = values.reshape(*(1,) * (first - 1), stop - start, *self.shape[first:])
        inner = tuple(0 if isinstance(each, int) else slice(None) for each in key[:first])
        found: NDArray[Any] = part[inner + tuple(key[first:])]
        return found


class NumPyFile:
    """An ``.npy`` file and those beside it, or an archive, as an `ArrayFile`.

    Args:
        path: The file.

    Raises:
        DataError: It is not there, or is no NumPy file.
    """

    def __init__(self, path: Path) -> None:
        self.source, self._path = str(path), path
        self._alone = path.suffix == ".npy"
        self._unpacked: io.BytesIO | None = None
        with self.reading():
            if path.suffix == ".bz2":
                self._unpacked = _unpacked(path)
        self.random_access = True

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        return guarded_reading(self._path, "a NumPy file" if self._alone else "a NumPy archive")

    def stored(self, name: str) -> Any:
        """Return an array, left in the file where that is possible."""
        if self._alone:
            # The patterns' own name is not looked at: the path has it.
            return self._kept(self._path, 0, self._path.stat().st_size, self.source)
        with self._archive() as archive:
            member = self._member(archive, name)
            if self._unpacked is not None or member.compress_type != zipfile.ZIP_STORED:
                self.random_access = False
                return self._read_member(archive, member, name)
        return self._kept(self._path, self._offset(member), member.file_size, f"{self.source}: {name}")

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        if self._alone:
            path = self._path.parent / name
            with guarded_reading(path, "a NumPy file", f"data: {name}"), path.open("rb") as stream:
                return _read(stream, path.stat().st_size, str(path))
        with self._archive() as archive:
            return self._read_member(archive, self._member(archive, name), name)

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with zipfile.ZipFile(self._path if self._unpacked is None else self._unpacked) as archive:
            yield archive

    def _member(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if name not in members:
            held = "\n".join(f"  {each} {_shape(archive, info)}" for each, info in members.items())
            raise DataError(f'{self.source} has no array "{name}"; {did_you_mean(name, members)}\nIt holds:\n{held}')
        return members[name]

    def _read_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
        with archive.open(member) as stream:
            return _read(stream, member.file_size, f"{self.source}: {name}")

    def _offset(self, member: zipfile.ZipInfo) -> int:
        """Return where the bytes of a member that is not compressed begin in the archive."""
        with self._path.open("rb") as file:
            file.seek(member.header_offset + 26)  # lengths of name and extra field, in the local header of 30 bytes
            name, extra = np.frombuffer(file.read(4), "<u2")
        return member.header_offset + 30 + int(name) + int(extra)

    def _kept(self, path: Path, offset: int, size: int, name: str) -> Any:
        with path.open("rb") as stream:
            stream.seek(offset)
            header = _header(stream, size, name)
            values = stream.tell()
            if header.fortran_order:  # a pattern is strewn over the whole file
                self.random_access = False
                stream.seek(offset)
                return _read(stream, size, name)
        return OnDisk(path, values, header)


def _header(stream: IO[bytes], size: int, name: str) -> Header:
    """Read what an array of ``size`` bytes says of itself.

    It may declare more than there is, and NumPy would ask for that much memory.
    """
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = header(stream)
    if dtype.kind not in "iufcb":
        raise DataError(f"{name} must hold numbers, it holds {dtype}")
    num_bytes = prod(shape) * dtype.itemsize
    if num_bytes > size:
        raise DataError(f"{name} declares {num_bytes:,} bytes, but only {size:,} are there: the file is damaged")
    return Header(shape, fortran_order, dtype)


def _read(stream: IO[bytes], size: int, name: str) -> NDArray[Any]:
    shape, fortran_order, dtype = _header(stream, size, name)
    num_bytes = prod(shape) * dtype.itemsize
    if num_bytes > (free := free_host_memory()):
        raise DataError(
            f"{name} takes {bytes_in_words(num_bytes)}, but only {bytes_in_words(free)} of memory are free; save the "
            "patterns as .npy, in C order, which can be streamed"
        )
    return np.frombuffer(stream.read(num_bytes), dtype).reshape(shape, order="F" if fortran_order else "C")


def _shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Sequence[int] | str:
    try:
        with archive.open(member) as stream:
            return _header(stream, member.file_size, member.filename).shape
    except Exception:  # another kind of file in the archive: listed by its name alone
        return "(no array)"


def _unpacked(path: Path) -> io.BytesIO:
    """Unpack a bzip2 file, but no more than memory holds: a few kB can become many GB."""
    unpacked, free = io.BytesIO(), free_host_memory() // 2
    with bz2.open(path) as file:
        while part := file.read(_UNPACKED_AT_ONCE):
            if unpacked.tell() + len(part) > free:
                raise DataError(
                    f"{path} unpacks to more than {bytes_in_words(free)}, half of the memory that is free; unpack it "
                    "on disk (bunzip2) and save the patterns as .npy, which can be streamed"
                )
            unpacked.write(part)
    return unpacked
