"""Writes a file completely or not at all, so that it survives a killed process and a power failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    _sync_folder(path.parent)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove the unfinished files that killed processes left in a folder.

    Args:
        folder: The folder. While this runs, no other process may write such a file there.
        name: Name of the file that was to be written, or a pattern for such names.
    """
    for unfinished in folder.glob(f"{name}.tmp-*"):
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make sure that a rename in the folder survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
