"""Says what is being imported when that takes long, and makes sure that Ctrl-C ends it.

A module of somebody else may wait in its import for something that never comes, such as a server or a lock. A program
that imports it looks dead then. It cannot always be interrupted either: Python raises KeyboardInterrupt in the import,
where code that tries again after any exception swallows it, and a library that waits in C never lets Python raise it.

The command line has its imports watched (`watched_by`). Elsewhere, as in a notebook, nothing is watched: ending the
process there would lose what a person has in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple

SPEAKS_AFTER = 5.0  # seconds
_UNWINDS_WITHIN = 1.0  # seconds from a signal until the import has to be over
_LOOKS_EVERY = 0.1  # seconds


class Watcher(NamedTuple):
    """What is done about an import that takes long.

    Attributes:
        say: Shows a message.
        end: Ends the process at once, with the number of the signal that asked for it, and what was being done.
    """

    say: Callable[[str], None]
    end: Callable[[int, str], None]


_watchers: list[Watcher] = []
_is_watching = threading.Lock()  # what a module that is being imported imports is part of its import


@contextlib.contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Have the imports of components in the block watched."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.pop()


@contextlib.contextmanager
def may_be_slow(module: str, reason: str) -> Iterator[None]:
    """Watch the import of a module in the block, if a `Watcher` is there.

    Args:
        module: The name of the module, for messages.
        reason: What it is imported for.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; its text says what was being imported.
        RuntimeError: The module raises KeyboardInterrupt itself.
    """
    if not _watchers or not _is_watching.acquire(blocking=False):
        yield
        return
    try:
        with _signals() as arrived:
            watch = _Watch(f"importing {module} ({reason})", arrived, _watchers[-1])
            watch.start()
            try:
                yield
            except KeyboardInterrupt as error:
                if arrived is not None and watch.look() is None:
                    raise RuntimeError("it raises KeyboardInterrupt, though nobody pressed Ctrl-C") from error
                raise KeyboardInterrupt(f"while {watch.what}") from error
            finally:
                watch.finish()
    finally:
        _is_watching.release()


class _Watch(threading.Thread):
    """Waits for the end of an import.

    Args:
        what: What is being done.
        arrived: Where the numbers of signals can be read; None: nowhere.
        watcher: What is done about it.
    """

    def __init__(self, what: str, arrived: int | None, watcher: Watcher) -> None:
        super().__init__(name="trainkit-slow-imports", daemon=True)
        self.what, self._arrived, self._watcher = what, arrived, watcher
        self._signal: int | None = None
        self._over = threading.Event()
        self._reading = threading.Lock()  # both threads look

    def look(self) -> int | None:
        """Return the number of the first signal that arrived during the import."""
        if self._arrived is not None:
            with self._reading, contextlib.suppress(BlockingIOError):
                numbers = os.read(self._arrived, 64)
                self._signal = self._signal or next((each for each in numbers if each in _TO_END), None)
        return self._signal

    def run(self) -> None:
        """Speak once, and end the process if a signal did not end the import."""
        speaks, ends = monotonic() + SPEAKS_AFTER, float("inf")
        while not self._over.wait(_LOOKS_EVERY):
            now = monotonic()
            if self.look() is not None:
                ends = min(ends, now + _UNWINDS_WITHIN)
            if now >= ends and self._signal is not None:
                self._watcher.end(self._signal, self.what)
            if now >= speaks:
                speaks = float("inf")
                self._watcher.say(f"still {self.what}; Ctrl-C ends it")

    def finish(self) -> None:
        """The import is over."""
        self._over.set()
        self.join()


_TO_END = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


@contextlib.contextmanager
def _signals() -> Iterator[int | None]:
    """Yield a file descriptor from which the numbers of signals can be read as soon as they arrive.

    Python itself sees a signal only between two instructions of the main thread. None: this is another thread, in which
    Python does not let one ask for it.
    """
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    os.set_blocking(writes, False)
    before = None
    try:
        with contextlib.suppress(ValueError):
            before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        yield None if before is None else reads
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(reads)
        os.close(writes)
