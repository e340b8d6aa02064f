"""Voxels that begin after a text header, or that are in other files, which the header names."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from trainkit import DataError
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.files.stored import MOST_UNPACKED, check_size, read_exactly, unpacked

MOST_HEADER = 1 << 20  # bytes of a text header
_MOST_FILES = 100_000
_NUMBERED = re.compile(r"([^%]*%0?\d{0,2}d[^%\s]*)\s+(-?\d{1,9})\s+(-?\d{1,9})(?:\s+(-?\d{1,9}))?(?:\s+\d)?")


@attrs.frozen
class Pieces:
    """Where voxels are: in one file or in several, each with an equal share of them, in this order.

    Attributes:
        header: The file of the header, for messages.
        files: The files; the header's own, if the voxels follow it.
        skip: Bytes before the voxels in each; -1: the voxels are the last bytes of a file.
        packing: "raw", "gzip", "zlib" or "bzip2".
        lines: Lines before the voxels, in front of ``skip``.
    """

    header: Path
    files: tuple[Path, ...]
    skip: int
    packing: str
    lines: int = 0

    def check(self, num_bytes: int) -> None:
        """Check that the files are there and can hold ``num_bytes`` together.

        Raises:
            DataError: They are not, or cannot.
        """
        for file in self.files:
            if not file.is_file():
                raise DataError(f"{self.header}: the header names the file {file.name}, which is not there")
        if num_bytes % len(self.files):
            raise DataError(f"{self.header}: {num_bytes} bytes of voxels cannot be in {len(self.files)} equal files")
        if self.skip < -1 or not 0 <= self.lines < MOST_HEADER:
            raise DataError(f"{self.header}: the header is damaged: it skips {self.skip} bytes, {self.lines} lines")
        if (self.skip == -1 or self.lines) and self.packing != "raw":
            raise DataError(f"{self.header}: packed voxels must begin at a byte that the header says")
        share = num_bytes // len(self.files)
        before = max(self.skip, 0) if self.packing == "raw" else 0
        for file in self.files:
            check_size(file, before + share, MOST_UNPACKED[self.packing])

    def read(self, num_bytes: int, dtype: np.dtype[Any]) -> Array:
        """Return the voxels of all files, one after the other, as a flat array."""
        share = num_bytes // len(self.files)
        parts = [self._one(file, share) for file in self.files]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).view(dtype)

    def _one(self, path: Path, num_bytes: int) -> Array:
        with path.open("rb") as file:
            for _ in range(self.lines):
                file.readline(MOST_HEADER)
            if self.skip == -1:
                file.seek(-num_bytes, io.SEEK_END)
            else:
                file.seek(self.skip, io.SEEK_CUR)
            stream = unpacked(file, self.packing)
            return read_exactly(path, stream, num_bytes, to_the_end=self.packing != "raw")


@attrs.frozen
class TextHeader:
    """The fields of a text header.

    Attributes:
        path: The file.
        of: Name of a field -> its text.
        end: Where the header ends in the file.
        data_files: Names of the files of voxels, if the header lists them on lines of their own.
        pairs: Key -> value of what other programs keep in the file.
    """

    path: Path
    of: Mapping[str, str]
    end: int
    data_files: tuple[str, ...] = ()
    pairs: Mapping[str, str] = attrs.field(factory=dict)

    def field(self, name: str) -> str:
        """Return the text of a field.

        Raises:
            DataError: It is not there.
        """
        if name not in self.of:
            raise DataError(f"{self.path}: the header is damaged: it has no {name}")
        return self.of[name]


def read_text_header(path: Path, ends: bytes) -> tuple[str, int]:
    """Return a text header, and where it ends in the file.

    Args:
        path: The file.
        ends: The line that ends it, an empty one, or how its last line begins.

    Raises:
        DataError: It does not end within the first megabyte.
    """
    lines: list[bytes] = []
    with path.open("rb") as file:
        while line := file.readline(MOST_HEADER):
            lines.append(line)
            stripped = line.strip()
            if (not ends and not stripped) or (ends and stripped.startswith(ends)) or file.tell() > MOST_HEADER:
                break
        end = file.tell()
    if end > MOST_HEADER:
        raise DataError(f"{path}: the header is damaged: it does not end within the first megabyte")
    return b"".join(lines).decode("utf-8", errors="replace"), end


def listed_files(header: Path, written: Sequence[str]) -> tuple[Path, ...]:
    """Return the paths of files that a header names, relative to its own folder.

    Args:
        header: The file of the header.
        written: Names; a name with ``%03d`` is followed by the first number, the last and the step.

    Raises:
        DataError: There are none, or far too many.
    """
    names = list(written)
    if len(names) == 1 and (numbered := _NUMBERED.fullmatch(names[0])):
        first, last, step = (int(each or "1") for each in numbered.groups()[1:])
        if step == 0 or abs(last - first) // abs(step) >= _MOST_FILES:
            raise DataError(f"{header}: the header is damaged: it names files {first} to {last} in steps of {step}")
        names = [numbered[1] % number for number in range(first, last + (1 if step > 0 else -1), step)]
    if not names or len(names) > _MOST_FILES:
        raise DataError(f"{header}: the header names {len(names)} files of voxels")
    return tuple(header.parent / name for name in names)
