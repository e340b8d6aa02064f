"""Writes a file whole or not at all, so that it survives a killed process and a power failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a new, empty file beside ``path`` to write to, which takes the place of ``path`` when the block ends.

    Until then, and if the block raises, whatever was at ``path`` stays, and the new file is removed. After the block
    the content and its name are on the disk. Anybody may write the file, also a library that replaces it by another;
    it gets the permissions that a file gets which is opened for writing. A killed process leaves its unfinished file
    behind: see `remove_unfinished`.

    Args:
        path: The file to be written, in a folder that exists.

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
            os.fchmod(file.fileno(), mode)  # some libraries allow the owner alone to read what they write
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of files that they were writing.

    Args:
        folder: Where they wrote. While this runs, nobody else may write such a file there.
        name: Name of the file, or a pattern of names.
    """
    for unfinished in folder.glob(f"{name}.tmp-*"):
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
