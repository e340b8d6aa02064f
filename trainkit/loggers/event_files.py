"""Keeps of TensorBoard's event files what belongs to a point, so that a resumed run writes every later value once.

TensorBoard can be told to ignore what came after a step (``purge_step``), but only of files that it reads before, and
it reads them in the order of the times in their names. These come from the clock, in seconds: after two starts in one
second, or with a clock that was set back, points would be doubled or lost. It also knows one axis only, and a
writer has values of epochs and of steps. So the files themselves are rewritten.

An event file is a sequence of records: the length of the data (8 bytes), its checksum (4), the data, its checksum (4).
The data is an ``Event`` of TensorFlow; the first one only says which version of the format follows.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from trainkit.files.writing import make_folder, sync_folder, written_whole

_NAME = re.compile(r"(events\.out\.tfevents\.)(\d{10})(\..*)")
_HEADER, _FOOTER = 12, 4

Keeps = Callable[[str, str, int], bool]
"""Returns, for the name of a writer, a tag and a place on its axis, whether that is kept."""


def carry_over(source: Path, target: Path, keeps: Keeps) -> None:
    """Bring the events that are kept from the writers of one folder into another, or keep only those in one folder.

    What was in the target before is removed. An unfinished or damaged record ends its file. A file in which nothing is
    left is removed.

    Args:
        source: A folder with a folder for each writer; it may be missing.
        target: Another one, or the same.
        keeps: Which events are kept.
    """
    in_place = source == target or (target.exists() and source.exists() and source.samefile(target))
    if not in_place:
        for path in [file for writer in _writers(target) for file in _files(writer)]:
            path.unlink()
    for writer in _writers(source):
        folder = target / writer.name
        for path in _files(writer):
            kept = list(_kept(path.read_bytes(), partial(keeps, writer.name)))
            if len(kept) > 1:
                make_folder(folder)
                with written_whole(folder / path.name) as new:
                    new.write_bytes(b"".join(kept))
            elif in_place:
                path.unlink()
        if folder.is_dir():
            sync_folder(folder)


def _kept(content: bytes, keeps: Callable[[str, int], bool]) -> Iterator[bytes]:
    """Yield the first record of a file, and those that are kept."""
    place = 0
    while place + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        end = place + _HEADER + length + _FOOTER
        if end > len(content):
            return
        try:
            event = Event.FromString(content[place + _HEADER : end - _FOOTER])
        except Exception:  # protobuf's DecodeError
            return
        if place == 0 or any(keeps(value.tag, event.step) for value in event.summary.value):
            yield content[place:end]
        place = end


def order_before_now(folder: Path) -> None:
    """Rename event files where needed, so that they are read in their present order, and before one begun now."""
    latest, names = int(time.time()), {}
    for path in reversed(_files(folder)):
        latest = min(int(path.name.split(".")[3]), latest - 1)
        names[path] = _NAME.sub(rf"\g<1>{latest:010d}\g<3>", path.name)
    for path, name in reversed(names.items()):  # the earliest first: the order holds at each moment
        if path.name != name:
            path.rename(path.with_name(name))


def _files(folder: Path) -> list[Path]:
    """Return the event files in a folder in the order in which TensorBoard reads them."""
    found = [path for path in folder.glob("events.out.tfevents.*") if _NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _writers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
