"""Preprocessed cases on the disk, memory-mapped, shared by all users of the folder.

    entries/<ab>/<key>.safetensors     one case; the key is a digest of everything that its content depends on
    files/…                            facts about source files (`trainkit.FileFacts`)
    locks/<ab>                         lock for entries whose key starts with <ab>, held while one is written
    leases/<run>                       the keys that a run uses; locked for as long as the run lives
    lock                               held while leases are written, and while entries are removed

An entry is written under another name and renamed when it is complete and on the disk, so a killed process leaves
nothing that looks like an entry. Locks are the kernel's (flock): they end with the process that holds them.

An entry holds a digest of its content. A run verifies each entry that it uses once, before it begins, and makes anew
what is not as it was written: disks age, and shared folders have many users. Everything in the folder is open to those
who may use the folder itself. Who can only read it uses the entries that are there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from xxhash import xxh3_128

from trainkit import DataError, FileFacts, make_shared, remove_unfinished, share, written_whole
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.preparing.cache import Cache

_ABOUT, _DIGEST = "trainkit", "xxh3"
_ENTRY = re.compile(r"[0-9a-f]{32}\.safetensors(\.tmp-[0-9a-f-]+)?")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_log = logging.getLogger("trainkit.segmentation")


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
        self.files = FileFacts(self.folder / "files", root=self.folder)
        self._lease: int | None = None
        self._is_read_only = False
        self._limit = None if settings.limit_gb is None else round(settings.limit_gb * 1e9)

    def use(self, keys: Iterable[str]) -> None:
        """Keep these entries from being removed while this object, or a process forked from this one, lives.

        In a folder that can only be read, nothing keeps its owner from removing them.
        """
        with self._writable():
            if self._is_read_only:
                return
            try:
                with self._alone():
                    if self._lease is None:
                        self._used()  # removes the leases of runs that ended
                        path = self.folder / "leases" / f"{os.getpid()}-{secrets.token_hex(4)}"
                        self._lease = self._lock(path)
                        weakref.finalize(self, _release, path, self._lease, os.getpid())
                    os.write(self._lease, "".join(f"{key}\n" for key in keys).encode())
            except OSError as error:
                if error.errno not in _READ_ONLY or not self.folder.is_dir():
                    raise
                self._is_read_only = True
                _log.info("the cache %s can only be read: what it lacks cannot be added", self.folder)

    def ensure(
        self, key: str, make: Callable[[], tuple[Mapping[str, Array], Mapping[str, Any]]]
    ) -> Literal["found", "made", "mended"]:
        """Make sure that an entry exists and is as it was written, and mark it as just used.

        Args:
            key: Key of the entry; `use` was called with it.
            make: Returns the arrays and JSON values of the entry; called if there is no good entry yet.

        Returns:
            What was done; "mended": the entry was damaged, and was made anew.

        Raises:
            DataError: The entry does not fit into the size limit, or the folder cannot be written; or ``make`` raises.
        """
        path = self.path(key)
        found = "whole" if _is_whole(path) else "damaged" if path.exists() else "absent"
        if found != "whole":
            if self._is_read_only:
                raise DataError(
                    f"its entry in the cache {self.folder} is {found}, and the folder can only be read; set "
                    "data.cache.folder to a folder of your own"
                )
            with self._writable():
                with self._locked(self.folder / "locks" / key[:2]):
                    missing = not _is_whole(path)  # nobody else made it while this one waited
                    if missing:
                        arrays, about = make()
                        make_shared(path.parent, self.folder)
                        _write(path, arrays, about)
                        share(path, self.folder)
                if missing:
                    self._make_room(path)
                    return "made" if found == "absent" else "mended"
        with contextlib.suppress(PermissionError):  # an entry of somebody else
            os.utime(path)
        return "found"

    def path(self, key: str) -> Path:
        """Return the path of an entry, whether or not it exists."""
        return self.folder / "entries" / key[:2] / f"{key}.safetensors"

    def size(self) -> int:
        """Return the size of all entries in bytes."""
        return sum(stat.st_size for _, stat in self._entries())

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        """Return every entry, including those that a killed process left unfinished."""
        found = []
        for path in (self.folder / "entries").glob("*/*.safetensors*"):
            if not _ENTRY.fullmatch(path.name):
                continue  # somebody else's file
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
                if total > self._limit and used is not None and path.name.partition(".")[0] not in used:
                    with contextlib.suppress(PermissionError):  # of somebody else, in a folder with the sticky bit
                        path.unlink(missing_ok=True)
                        total -= stat.st_size
        if total > self._limit:
            raise DataError(
                f"{self.folder}: the preprocessed cases in use take {total / 1e9:.3g} GB, more than "
                f"data.cache.limit_gb = {self._limit / 1e9:g}; raise it ({newest.stat().st_size / 1e9:.2g} GB a case)"
            )

    def _used(self) -> set[str] | None:
        """Return the keys that living runs use, and remove the leases of dead runs; None: a lease cannot be read."""
        used: set[str] | None = set()
        for path in (self.folder / "leases").glob("*"):
            try:
                with path.open("r", errors="replace") as lease:
                    try:
                        fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        if used is not None:
                            used.update(lease.read().split("\n"))
                    else:
                        path.unlink()
            except (FileNotFoundError, IsADirectoryError):  # its run ended meanwhile, or it is no lease
                continue
            except PermissionError:
                used = None
        return used

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._locked(self.folder / "lock"):
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        file = self._lock(path)
        try:
            yield
        finally:
            os.close(file)

    def _lock(self, path: Path) -> int:
        """Wait for a file's lock, and return the open file, which holds the lock until it is closed."""
        make_shared(path.parent, self.folder)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            share(path, self.folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:
            os.close(file)
            raise
        return file

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the cache {self.folder} cannot be written: {error.strerror or error}; "
                "set data.cache.folder to a folder with room"
            ) from error


def read_entry(path: Path, *, verify: bool = True) -> Entry:
    """Map an entry into memory.

    Args:
        path: The entry.
        verify: Whether to compare the content with its digest, which reads all of it. Who got the entry from
            `CaseStore.ensure` need not.

    Raises:
        DataError: The file is not an entry, is truncated, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about, digest = file.metadata()[_ABOUT], file.metadata()[_DIGEST]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        if verify and digest != _digest(about, {name: tensor.numpy() for name, tensor in tensors.items()}):
            raise ValueError("its content is not what was written")
        return Entry(tensors, json.loads(about))
    except Exception as error:  # whatever wrong bytes lead to
        raise DataError(f"{path}: this entry of the cache is damaged ({error}); delete it and start again") from error


def _is_whole(path: Path) -> bool:
    try:
        read_entry(path)
    except DataError:
        return False
    return True


def _digest(about: str, arrays: Mapping[str, Array]) -> str:
    """Return a digest of the content of an entry."""
    digest = xxh3_128(about.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _write(path: Path, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write an entry. The caller holds its lock, so no other process writes it."""
    remove_unfinished(path.parent, path.name)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(about)
    try:
        with written_whole(path) as new:
            save_file(contiguous, new, metadata={_ABOUT: text, _DIGEST: _digest(text, contiguous)})
    except SafetensorError as error:  # most often because the disk is full
        raise OSError(str(error)) from error


def _release(lease: Path, file: int, owner: int) -> None:
    """Release a lease. A forked process keeps its copy of the open file, and so the lease, until it ends."""
    if os.getpid() == owner:
        lease.unlink(missing_ok=True)
        os.close(file)


def _default_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "trainkit" / "segmentation"
