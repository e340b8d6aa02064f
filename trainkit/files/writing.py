"""Writes a file completely or not at all, so that it survives a killed process and a power failure."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SET_ASIDE = ".set-aside"
"""What is added to the name of a file that is set aside."""

_UNFINISHED = re.compile(r"\.tmp-[0-9a-f]{8}\Z")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Provide a new, empty file beside ``path`` to write to, which replaces ``path`` when the block ends.

    Until the block ends, ``path`` stays as it was. If the block raises, the new file is removed. After the block, the
    content and the name are on the disk. The block, or a library that it calls, may also replace the new file by
    another. The result has the permissions of a file that is opened for writing. A process that is killed leaves its
    unfinished file behind: see `remove_unfinished`.

    Args:
        path: The file to write, in an existing folder.

    Raises:
        OSError: The folder cannot be written, or the disk is full.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder, "answer.txt")) as new:
        ...         _ = new.write_text("42")
        ...     Path(folder, "answer.txt").read_text()
        '42'
    """
    new = path.with_name(f"{path.name}.tmp-{os.urandom(4).hex()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        mode = os.fstat(descriptor).st_mode & 0o777
        os.close(descriptor)
        yield new
        with new.open("rb") as file:
            os.fchmod(file.fileno(), mode)  # some libraries write files that only their owner can read
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove the unfinished files that killed processes left in a folder; what others named similarly is left alone.

    Args:
        folder: The folder. While this runs, no other process may write such a file there.
        name: Name of the file that was to be written, or a pattern for such names.
    """
    for unfinished in folder.glob(f"{name}.tmp-*"):
        if is_unfinished(unfinished):
            unfinished.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Return whether a path is a file that `written_whole` began and a killed process did not finish."""
    return _UNFINISHED.search(path.name) is not None and path.is_file()


def set_aside(path: Path) -> Path:
    """Rename a file that is damaged or in the way to a name that nothing reads, beside it, and return the new path.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for _ in range(2):
        ...         Path(folder, "a.json").touch()
        ...         print(set_aside(Path(folder, "a.json")).name)
        a.json.set-aside
        a.json.set-aside-2
    """
    names = itertools.chain([f"{path.name}{SET_ASIDE}"], (f"{path.name}{SET_ASIDE}-{n}" for n in itertools.count(2)))
    aside = next(other for name in names if not os.path.lexists(other := path.with_name(name)))
    os.rename(path, aside)
    sync_folder(path.parent)
    return aside


def append_line(path: Path, line: str) -> None:
    """Append a line of text to a file; when this returns, the line is on the disk.

    Raises:
        OSError: The file cannot be written.
    """
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; when this returns, they are on the disk.

    Raises:
        OSError: It cannot be made.
    """
    missing = list(itertools.takewhile(lambda each: not each.is_dir(), (path, *path.parents)))
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that new and renamed files of a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
