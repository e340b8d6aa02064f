"""Preprocessed cases on the disk, memory-mapped, shared by all users of the folder.

    entries/<ab>/<key>.safetensors     one case; the key is a digest of everything that its content depends on
    files/…                            facts about source files (`trainkit.FileFacts`)
    locks/<ab>                         lock for entries whose key starts with <ab>, held while one is written
    leases/<run>                       the keys that a run uses; locked for as long as the run lives
    lock                               held while leases are written, and while entries are removed

An entry is written under another name and renamed when it is complete and on the disk, so a killed process leaves
nothing that looks like an entry. Locks are the kernel's (flock): they end with the process that holds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from trainkit import DataError, FileFacts, remove_unfinished, written_whole
from trainkit_segmentation.files.nifti import Array
from trainkit_segmentation.preparing.cache import Cache

_ABOUT = "trainkit"


class Entry(NamedTuple):
    """A preprocessed case.

    Attributes:
        tensors: Name -> tensor, mapped into memory: only the pages that are used are read. Never write into one.
        about: JSON values.
    """

    tensors: Mapping[str, Tensor]
    about: dict[str, Any]


class CaseStore:
    """The cache folder, for one run.

    Args:
        settings: Location and size limit of the folder.

    Attributes:
        folder: The folder.
        files: Facts about source files.
    """

    def __init__(self, settings: Cache) -> None:
        self.folder = settings.folder or _default_folder()
        self.files = FileFacts(self.folder / "files")
        self._limit = None if settings.limit_gb is None else round(settings.limit_gb * 1e9)

    def use(self, keys: Iterable[str]) -> None:
        """Keep these entries from being removed while this object, or a process forked from this one, lives."""
        lease = self.folder / "leases" / f"{os.getpid()}-{secrets.token_hex(4)}"
        with self._writable(), self._alone():
            self._used()  # removes the leases of runs that ended
            file = _lock(lease)
            weakref.finalize(self, _release, lease, file, os.getpid())
            os.write(file, "\n".join(keys).encode())

    def ensure(self, key: str, make: Callable[[], tuple[Mapping[str, Array], Mapping[str, Any]]]) -> bool:
        """Make sure that an entry exists, and mark it as just used.

        Args:
            key: Key of the entry; `use` was called with it.
            make: Returns the arrays and JSON values of the entry; called if the entry does not exist yet.

        Returns:
            Whether the entry was made.

        Raises:
            DataError: The entry does not fit into the size limit, or the folder cannot be written; or ``make`` raises.
        """
        path = self.path(key)
        with self._writable():
            if not path.exists():
                with _locked(self.folder / "locks" / key[:2]):
                    made = not path.exists()
                    if made:
                        _write(path, *make())
                if made:
                    self._make_room(path)
                    return True
            os.utime(path)
        return False

    def path(self, key: str) -> Path:
        """Return the path of an entry, whether or not it exists."""
        return self.folder / "entries" / key[:2] / f"{key}.safetensors"

    def size(self) -> int:
        """Return the size of all entries in bytes."""
        return sum(stat.st_size for _, stat in self._entries())

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        """Return every entry, including those that a killed process left unfinished."""
        found = []
        for path in (self.folder / "entries").glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
                found.append((path, path.stat()))
        return found

    def _make_room(self, newest: Path) -> None:
        if self._limit is None:
            return
        with self._alone():
            entries = self._entries()
            total = sum(stat.st_size for _, stat in entries)
            if total <= self._limit:
                return
            used = self._used()
            for path, stat in sorted(entries, key=lambda each: each[1].st_mtime_ns):
                if total > self._limit and path.name.partition(".")[0] not in used:
                    path.unlink(missing_ok=True)
                    total -= stat.st_size
        if total > self._limit:
            raise DataError(
                f"{self.folder}: the preprocessed cases in use take {total / 1e9:.3g} GB, more than "
                f"data.cache.limit_gb = {self._limit / 1e9:g}; raise it ({newest.stat().st_size / 1e9:.2g} GB a case)"
            )

    def _used(self) -> set[str]:
        """Return the keys that living runs use, and remove the leases of dead runs."""
        used: set[str] = set()
        for path in (self.folder / "leases").glob("*"):
            with path.open("r") as lease:
                try:
                    fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    used.update(lease.read().split("\n"))
                else:
                    path.unlink()
        return used

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with _locked(self.folder / "lock"):
            yield

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the cache {self.folder} cannot be written: {error.strerror or error}; "
                "set data.cache.folder to a folder with room"
            ) from error


def read_entry(path: Path) -> Entry:
    """Map an entry into memory.

    Raises:
        DataError: The file is not an entry, or is truncated.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()[_ABOUT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this entry of the cache is damaged ({error}); delete it and start again") from error
    return Entry(tensors, about)


def _write(path: Path, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write an entry. The caller holds its lock, so no other process writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, path.name)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        with written_whole(path) as new:
            save_file(contiguous, new, metadata={_ABOUT: json.dumps(about)})
    except SafetensorError as error:  # most often because the disk is full
        raise OSError(str(error)) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _lock(path)
    try:
        yield
    finally:
        os.close(file)


def _lock(path: Path) -> int:
    """Wait for a file's lock, and return the open file, which holds the lock until it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        os.close(file)
        raise
    return file


def _release(lease: Path, file: int, owner: int) -> None:
    """Release a lease. A forked process keeps its copy of the open file, and so the lease, until it ends."""
    if os.getpid() == owner:
        lease.unlink(missing_ok=True)
        os.close(file)


def _default_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "trainkit" / "segmentation"
