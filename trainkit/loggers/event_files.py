"""Cuts TensorBoard's event files back to a point, so that a resumed run writes every later value exactly once.

TensorBoard can be told to ignore what came after a step (``purge_step``), but only of files that it reads before, and
it reads them in the order of the times in their names. These come from the clock, in seconds: after two starts in one
second, or with a clock that was set back, points would be doubled or lost. So the files themselves are cut.

An event file is a sequence of records: the length of the data (8 bytes), its checksum (4), the data, its checksum (4).
The data is an ``Event`` of TensorFlow, which begins with its time (field 1) and, unless it is 0, its step (field 2).
"""

from __future__ import annotations

import os
import re
import struct
import time
from pathlib import Path
from typing import BinaryIO

from trainkit.files.writing import sync_folder

_NAME = re.compile(r"(events\.out\.tfevents\.)(\d{10})(\..*)")
_HEADER, _FOOTER = 12, 4
_WALL_TIME, _STEP = 0x09, 0x10  # the keys of fields 1 and 2


def cut_back(folder: Path, step: int) -> None:
    """Remove every event at or after a step, and an unfinished record at a file's end.

    Args:
        folder: The folder of one writer; its steps never decrease within a file.
        step: The first step to remove. A file in which nothing is left is removed.
    """
    for path in _files(folder):
        with path.open("r+b") as file:
            end, has_values = _good_length(file, step)
            if end < os.fstat(file.fileno()).st_size:
                file.truncate(end)
                os.fsync(file.fileno())
        if not has_values:
            path.unlink()
    if folder.is_dir():
        sync_folder(folder)


def _good_length(file: BinaryIO, step: int) -> tuple[int, bool]:
    """Return at which byte the first event at or after a step begins, and whether there is a value before it."""
    size, end, has_values = os.fstat(file.fileno()).st_size, 0, False
    while len(header := file.read(_HEADER)) == _HEADER:
        (length,) = struct.unpack("<Q", header[:8])
        following = end + _HEADER + length + _FOOTER
        if following > size:
            break
        start = file.read(min(length, 64))
        if end > 0:  # the first record only says which version of the format follows
            if _step(start) >= step:
                break
            has_values = True
        end = following
        file.seek(end)
    return end, has_values


def _step(event: bytes) -> int:
    """Return the step of an event from its first bytes."""
    place = 9 if event[:1] == bytes([_WALL_TIME]) else 0
    if event[place : place + 1] != bytes([_STEP]):
        return 0
    number = 0
    for shift, byte in enumerate(event[place + 1 : place + 11]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            break
    return number if number < 1 << 63 else number - (1 << 64)


def order_before_now(folder: Path) -> None:
    """Rename event files where needed, so that they are read in their present order, and before one begun now."""
    latest, names = int(time.time()), {}
    for path in reversed(_files(folder)):
        latest = min(int(path.name.split(".")[3]), latest - 1)
        names[path] = _NAME.sub(rf"\g<1>{latest:010d}\g<3>", path.name)
    for path, name in reversed(names.items()):  # the earliest first: the order holds at each moment
        if path.name != name:
            path.rename(path.with_name(name))


def sync(folder: Path) -> None:
    """Bring a folder's newest event file, which is being written, to the disk."""
    for path in _files(folder)[-1:]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _files(folder: Path) -> list[Path]:
    """Return the event files in a folder in the order in which TensorBoard reads them."""
    found = [path for path in folder.glob("events.out.tfevents.*") if _NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())
