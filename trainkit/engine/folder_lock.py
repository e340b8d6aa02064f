"""Locks a run folder, so that only one process trains in it.

The lock is the system's (``flock`` on the file ``.lock``), which ends with its process, however that ends. Some
network file systems have no such lock, or only one among the processes of one machine. There, the process that trains
also keeps a file ``.heartbeat``, in which it counts up. Whoever finds one from another machine waits to see whether it
still counts: no two clocks are compared. If it does not, its process is gone, and the folder is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import attrs

from trainkit.errors import TrainkitError
from trainkit.files.reading import read_small
from trainkit.files.writing import make_folder, written_whole

_LOGGER = logging.getLogger("trainkit")

LOCK = ".lock"
HEARTBEAT = ".heartbeat"
_ATTEMPTS, _BETWEEN_ATTEMPTS_SECONDS = 4, 0.02
BEAT_SECONDS = 10.0
"""Time between two beats."""

SILENT_SECONDS = 45.0
"""A process that does not count up for so long is gone."""

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb",
    "ceph",
    "afs",
    "9p",
    "fuse",
    "glusterfs",
    "pvfs",
    "orangefs",
)


class FolderInUseError(TrainkitError):
    """Another process trains in the run folder."""


@attrs.define
class Locked:
    """A folder that this process has locked.

    Attributes:
        folder: Its path. Whoever renames the folder sets this, because the heartbeat is written there.
    """

    folder: Path


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Locked]:
    """Lock a run folder until the block ends.

    Raises:
        FolderInUseError: Another process has locked it; the message says which, and since when.
        TrainkitError: The folder cannot be written.
    """
    try:
        file = (folder / LOCK).open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise TrainkitError(
            f"{folder} cannot be locked: {error.strerror or error}; a run needs to write there"
        ) from error
    with file, _kept_from_children(file):
        works, locked = _take_lock_of_system(file, folder), Locked(folder)
        with contextlib.nullcontext() if works and not _is_on_network(folder) else _heartbeat(locked, works):
            file.seek(0)
            file.truncate()
            file.write(json.dumps(_this_process()) + "\n")
            file.flush()
            yield locked


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and let no other process of this machine into such a block for it; it waits for its turn.

    Where the file system has no lock, nothing is kept out.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_LOCKED: set[TextIO] = set()


@contextlib.contextmanager
def _kept_from_children(file: TextIO) -> Iterator[None]:
    """Close a file in every process that is forked in the block: a loader worker can outlive a run that was killed."""
    _LOCKED.add(file)
    try:
        yield
    finally:
        _LOCKED.discard(file)


def _close_in_child() -> None:
    for file in _LOCKED:
        file.close()
    _LOCKED.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _take_lock_of_system(file: TextIO, folder: Path) -> bool:
    """Take the system's lock on an open file; return False if the file system has none.

    Raises:
        FolderInUseError: Another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return False
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return False  # for example ENOLCK or ENOTSUP
            if attempts_left:
                time.sleep(_BETWEEN_ATTEMPTS_SECONDS)  # somebody may only be looking (`holder`)
                continue
            file.seek(0)
            raise FolderInUseError(
                f"{folder} is in use by another trainkit process: {_in_words(_parsed(file.read()))}; "
                "wait until it ends, or stop it"
            ) from error
        break
    return True


@attrs.frozen
class Holder:
    """The process that has locked a run folder, as far as it is known.

    Attributes:
        process: Its id; None: unknown.
        host: The machine that it runs on; "": unknown.
        user: Who started it; "": unknown.
        since: When it locked the folder (ISO 8601); "": unknown.
        is_certain: Whether the lock was seen; otherwise only its heartbeat was, which another machine writes.
    """

    process: int | None = None
    host: str = ""
    user: str = ""
    since: str = ""
    is_certain: bool = True


def holder(folder: Path) -> Holder | None:
    """Return which process has locked a run folder; None: none has.

    Nothing is written, and no other process is kept from locking the folder.
    """
    owner, is_locked = _looked_at(folder / LOCK)
    if is_locked:
        return _holder(owner)
    try:
        beat = folder / HEARTBEAT
        silent = time.time() - beat.stat().st_mtime
    except OSError:
        return None
    owner = _read(beat)
    if owner.get("host") == platform.node() or silent > 2 * SILENT_SECONDS:
        return None  # a process of this machine would have the lock
    return attrs.evolve(_holder(owner), is_certain=False)


def _looked_at(path: Path) -> tuple[dict[str, Any], bool]:
    """Return what a lock's file says, and whether a process has the lock."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (ImportError, OSError):
        return {}, False
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return {}, False
            with contextlib.suppress(OSError):
                return _parsed(file.read(1 << 16)), True
            return {}, True
        return {}, False


def _holder(owner: dict[str, Any]) -> Holder:
    process = owner.get("process")
    host, user, since = (str(owner.get(key, ""))[:80] for key in ("host", "user", "since"))
    return Holder(process if type(process) is int else None, host, user, since)


def _this_process() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a name for its user
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": platform.node(), "user": user, "since": since}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _in_words(owner: dict[str, Any]) -> str:
    def shown(key: str) -> str:
        return "".join(c for c in str(owner.get(key, "unknown"))[:80] if c.isprintable())

    return f"process {shown('process')} of user {shown('user')} on {shown('host')}, since {shown('since')}"


# ---- where the system's lock does not reach other machines ----------------------------------------------------------


def _is_on_network(folder: Path) -> bool:
    """Return whether a folder is on a file system that other machines may write too, as far as Linux tells."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    path = str(folder.resolve())
    longest, found = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= longest:
            longest, found = len(point), after.split()[0]
    return found.startswith(_NETWORK)


@contextlib.contextmanager
def _heartbeat(locked: Locked, locked_here: bool) -> Iterator[None]:
    """Keep a heartbeat in a folder.

    Args:
        locked: The run folder.
        locked_here: Whether no other process of this machine can be using it.
    """
    path, mine = locked.folder / HEARTBEAT, {**_this_process(), "token": secrets.token_hex(8)}
    _make_way(path, locked.folder, locked_here)
    _create(path, mine | {"beat": 0}, locked.folder)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(locked, mine, ended), name="heartbeat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        path = locked.folder / HEARTBEAT
        if _read(path).get("token") == mine["token"]:
            path.unlink(missing_ok=True)


def _create(path: Path, content: dict[str, Any], folder: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:  # another process was faster
        raise _in_use(folder, path) from error
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def _beat(locked: Locked, mine: dict[str, Any], ended: threading.Event) -> None:
    number = 0
    while not ended.wait(BEAT_SECONDS):
        number += 1
        path = locked.folder / HEARTBEAT
        if _read(path).get("token", mine["token"]) != mine["token"]:
            _LOGGER.warning("%s: another process has taken over this run folder; stop one of the two", path)
            return
        with contextlib.suppress(OSError), written_whole(path) as new:  # the next beat may succeed
            new.write_text(json.dumps(mine | {"beat": number}) + "\n", encoding="utf-8")


def _make_way(path: Path, folder: Path, locked_here: bool) -> None:
    """Remove the heartbeat of a process that is gone.

    Raises:
        FolderInUseError: Its process lives.
    """
    before = _read(path)
    if not os.path.lexists(path):
        return
    if not (locked_here and before.get("host") == platform.node()):
        _LOGGER.warning(
            "%s was in use by %s: waiting %.0f s to see whether it still is", folder, _in_words(before), SILENT_SECONDS
        )
        until = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < until:
            time.sleep(SILENT_SECONDS / 45)
            if not os.path.lexists(path):
                return
            if _read(path) != before:
                raise _in_use(folder, path)
        _LOGGER.warning("%s is no longer in use: this process takes over", folder)
    gone = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
    try:
        os.rename(path, gone)  # of several that wait, one succeeds
    except FileNotFoundError:
        return
    if _read(gone) != before:  # another process has taken over meanwhile
        os.rename(gone, path)
        raise _in_use(folder, path)
    gone.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(read_small(path, "a heartbeat", 1 << 20).decode(errors="replace"))
    except (OSError, ValueError):
        return {}


def _in_use(folder: Path, path: Path) -> FolderInUseError:
    return FolderInUseError(
        f"{folder} is in use by another trainkit process: {_in_words(_read(path))}; wait until it ends, or stop it. "
        f"If you know that it is gone, take over by deleting {path}"
    )
