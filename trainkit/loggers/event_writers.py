"""Writes TensorBoard's event files: many records at a time, so that a step pays for an entry of a list alone.

A record has a checksum, which TensorBoard computes in Python, and its file is opened to append it. So what is logged
waits, together with its time, until it is written: every 30 seconds in a thread, which is how often TensorBoard looks
for something new, and at each checkpoint.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trainkit.files.writing import make_folder, sync_folder

_SECONDS = 30.0
_FORMAT = "brain.Event:2"
_NUMBERS = itertools.count()

Make = Callable[[], Mapping[str, Summary]]
"""Returns writer -> what it is to write."""


class EventWriters:
    """New event files of a run, one for each writer.

    If writing fails, what could not be written is lost, the file keeps its whole records, and the next call raises.

    Args:
        folder: The folder that has a folder for each writer.
        names: The writers.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._files = {name: _EventFile.begun(folder / name) for name in names}
        self._waiting: deque[tuple[Make, float, int | None]] = deque()
        self._writing = threading.Lock()
        self._trouble: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_at_times, name="TensorBoard", daemon=True)
        self._thread.start()

    def put(self, make: Make, at: int | None) -> None:
        """Put in what is to be written with the present time.

        Args:
            make: Returns it; called when it is written, perhaps in another thread.
            at: Its place on the x-axis; None: it has none.
        """
        self._waiting.append((make, time.time(), at))
        self._raise_trouble()

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._raise_trouble()
        with self._writing:
            self._write()
            for file in self._files.values():
                file.sync()

    def close(self) -> None:
        """Write everything, and end the thread."""
        self._closing.set()
        self._thread.join()
        with self._writing:
            self._write()
        self._raise_trouble()

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble

    def _write_at_times(self) -> None:
        """Write what waits, until the end; the thread runs this."""
        while not self._closing.wait(_SECONDS):
            try:
                with self._writing:
                    self._write()
            except Exception as error:
                self._trouble = error

    def _write(self) -> None:
        events: dict[str, list[Event]] = {}
        while self._waiting:
            make, seconds, at = self._waiting.popleft()
            for name, summary in make().items():
                events.setdefault(name, []).append(Event(wall_time=seconds, step=at, summary=summary))
        for name, each in events.items():
            self._files[name].append(each)


@attrs.define
class _EventFile:
    """An event file.

    Attributes:
        path: The file.
        is_synced: Whether all that is in it is on the disk.
    """

    path: Path
    is_synced: bool = False

    @classmethod
    def begun(cls, folder: Path) -> _EventFile:
        """Make a file whose name says when it began, as TensorBoard wants it."""
        make_folder(folder)
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        file = cls(folder / name)
        file.append([Event(wall_time=now, file_version=_FORMAT)])
        sync_folder(folder)
        return file

    def append(self, events: Iterable[Event]) -> None:
        """Append records, all or none of them.

        Raises:
            OSError: The file cannot be written.
        """
        content = io.BytesIO()
        for event in events:
            RecordWriter(content).write(event.SerializeToString())
        self.is_synced = False
        with self.path.open("ab", buffering=0) as file:
            before, rest = file.tell(), content.getvalue()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(before)
                raise

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if not self.is_synced:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self.is_synced = True
