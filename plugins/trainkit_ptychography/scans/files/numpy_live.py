"""Reads arrays from NumPy files, none of which is trusted."""

from __future__ import annotations

import bz2
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, did_you_mean, free_host_memory, guarded_reading, without_controls
from trainkit_ptychography.scans.files.foreign import refuse_foreign
from trainkit_ptychography.scans.files.limits import SUSPICIOUS_BYTES, refuse_one_value
from trainkit_ptychography.scans.files.on_disk import Header, OnDisk

_UNPACKED_AT_ONCE = 2**22  # bytes
_LONGEST_HEADER = 10_000  # bytes; NumPy itself trusts no longer one, but reads it first
_MOST_AXES = 64
_MOST_MEMBERS, _LONGEST_LIST, _MOST_LISTED = 10_000, 2**23, 30
_BEST_BZIP2 = 2000  # what patterns of few electrons reach; zeros reach 20,000


class NumPyFile:
    """An ``.npy`` file and those beside it, or an archive, as an `ArrayFile`.

    Args:
        path: The file.
        setting: The setting that names it.

    Raises:
        DataError: It is not there, or is no NumPy file.
    """

    def __init__(self, path: Path, setting: str = "data.path") -> None:
        self.source, self._path, self._setting = str(path), path, setting
        self._alone = path.suffix == ".npy"
        self._unpacked: io.BytesIO | None = None
        refuse_foreign(path, "numpy", setting)
        with self.reading():
            if path.suffix == ".bz2":
                self._unpacked = _unpacked(path)
            elif not self._alone:
                _check_directory(path)
        self.random_access = True

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        return guarded_reading(self._path, "a NumPy file" if self._alone else "a NumPy archive", self._setting)

    def stored(self, name: str) -> Any:
        """Return an array, which stays in the file if that is possible."""
        if self._alone:
            if name.endswith(".npy") and name != self._path.name:
                return array_beside(self._path, name)
            # The name of the patterns is ignored: the path names them.
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
            return array_beside(self._path, name)
        with self._archive() as archive:
            return self._read_member(archive, self._member(archive, name), name)

    def names(self) -> list[str]:
        """Return the names of the arrays in an archive."""
        with self.reading(), self._archive() as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with zipfile.ZipFile(self._path if self._unpacked is None else self._unpacked) as archive:
            yield archive

    def _member(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if name not in members:
            listed = list(members.items())[:_MOST_LISTED]
            held = [f"  {without_controls(each)} {_shape(archive, info)}" for each, info in listed]
            held += [f"  … and {len(members) - _MOST_LISTED} more"] if len(members) > _MOST_LISTED else []
            near = without_controls(did_you_mean(name, members))
            raise DataError("\n".join([f'{self.source} has no array "{name}"; {near}\nIt holds:', *held]))
        member = members[name]
        if member.flag_bits & 1:
            raise DataError(f'{self.source}: "{name}" is encrypted; save it without a password')
        return member

    def _read_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
        where = f"{self.source}: {name}"
        if member.compress_type != zipfile.ZIP_STORED:
            refuse_one_value(where, member.file_size, member.compress_size, lambda: _beginning(archive, member))
        with archive.open(member) as stream:
            return _read(stream, member.file_size, where)

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
            if header.fortran_order:  # a pattern is scattered over the whole file
                self.random_access = False
                stream.seek(offset)
                return _read(stream, size, name)
        return OnDisk(path, values, header)


def array_beside(path: Path, name: str) -> NDArray[Any]:
    """Read an ``.npy`` file that lies beside another file.

    Args:
        path: The other file.
        name: The name of the ``.npy`` file, from there.

    Raises:
        DataError: It is not there, or cannot be read.
    """
    beside = path.parent / name
    refuse_foreign(beside, "numpy", f"data: {name}")
    with guarded_reading(beside, "a NumPy file", f"data: {name}"), beside.open("rb") as stream:
        return _read(stream, beside.stat().st_size, str(beside))


def _header(stream: IO[bytes], size: int, name: str) -> Header:
    """Read what an array of ``size`` bytes says about itself.

    It may declare more than there is, and NumPy would ask for that much memory.
    """
    start = stream.read(12)
    version, length = tuple(start[6:8]), int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    if start[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0), (3, 0)):
        raise DataError(f"{name} is no array of NumPy (.npy): it begins with {start[:6]!r}")
    if length > _LONGEST_HEADER:
        raise DataError(f"{name} has a header of {length:,} bytes; that of an array of numbers has a few hundred")
    text = start[10 if version == (1, 0) else 12 :] + stream.read(length - (2 if version == (1, 0) else 0))
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    size_of_length = 2 if version == (1, 0) else 4
    shape, fortran_order, dtype = header(io.BytesIO(length.to_bytes(size_of_length, "little") + text))
    if dtype.hasobject:
        raise DataError(f"{name} holds objects of Python, which would have to run code to be read; save numbers only")
    if dtype.kind not in "iufcb":
        raise DataError(f"{name} must hold numbers, it holds {without_controls(str(dtype))[:200]}")
    if len(shape) > _MOST_AXES or any(each < 0 for each in shape):
        raise DataError(f"{name} declares the shape {str(shape)[:100]}, which no array has: the file is damaged")
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


def _check_directory(path: Path) -> None:
    """Check that an archive does not list so many members that reading the list takes long.

    Raises:
        DataError: It does.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**16 - 22))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    num, listed = (int.from_bytes(end[at + a : at + b], "little") for a, b in ((10, 12), (12, 16)))
    if at >= 0 and (num > _MOST_MEMBERS or listed > _LONGEST_LIST):
        raise DataError(
            f"{path} lists {num:,} members or more, which no archive of a scan has; {_MOST_MEMBERS} are read"
        )


def _beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[NDArray[Any]]:
    """Yield the first values of a packed array, as bytes; none if each read would unpack very many of them."""
    if member.compress_type != zipfile.ZIP_DEFLATED:
        return
    with archive.open(member) as stream:
        _header(stream, member.file_size, member.filename)
        for _ in range(4):
            yield np.frombuffer(stream.read(_UNPACKED_AT_ONCE), np.uint8)


def _shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Sequence[int] | str:
    try:
        with archive.open(member) as stream:
            return _header(stream, member.file_size, member.filename).shape
    except Exception:  # another kind of file in the archive: listed by its name alone
        return "(no array)"


def _unpacked(path: Path) -> io.BytesIO:
    """Unpack a bzip2 file, but no more than memory holds: a few kB can become many GB."""
    unpacked, free = io.BytesIO(), free_host_memory() // 2
    packed = path.stat().st_size
    with bz2.open(path) as file:
        while part := file.read(_UNPACKED_AT_ONCE):
            if unpacked.tell() + len(part) > free:
                raise DataError(
                    f"{path} unpacks to more than {bytes_in_words(free)}, half of the memory that is free; unpack it "
                    "on disk (bunzip2) and save the patterns as .npy, which can be streamed"
                )
            unpacked.write(part)
            if unpacked.tell() > max(_BEST_BZIP2 * packed, SUSPICIOUS_BYTES // 2):
                raise DataError(
                    f"{path} takes {bytes_in_words(packed)} and unpacks to more than "
                    f"{bytes_in_words(unpacked.tell())}, which is hardly more than one value: it is made to do harm, "
                    "or holds no counts"
                )
    return unpacked
