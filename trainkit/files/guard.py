"""Turns whatever a parser raises on a damaged or hostile file into one DataError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainkit.errors import DataError

_NOT_OF_THE_FILE = {  # errors that say nothing about what is in a file -> what to do
    errno.EMFILE: "allow more open files (ulimit -n), or join the files into one",
    errno.ENFILE: "end other programs that keep files open",
    errno.EACCES: "ask for the right to read it",
    errno.EPERM: "ask for the right to read it",
    errno.EIO: "look at the disk, or copy the file anew",
    errno.ESTALE: "mount its file system anew",
    errno.ENOMEM: "free some memory",
}


@contextmanager
def guarded_reading(path: Path, kind: str, setting: str = "data.path") -> Iterator[None]:
    """Turn whatever is raised while a file is read into a DataError that names the file.

    Parsers raise nearly any exception (KeyError, zlib.error, UnicodeDecodeError, …) when a file has wrong bytes.

    Args:
        path: The file.
        kind: What the file should be, for example "an HDF5 file".
        setting: The setting of the recipe that names the file.

    Raises:
        DataError: The file does not exist, or something went wrong while it was read.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} ({setting})")
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OF_THE_FILE:
            named = Path(error.filename) if isinstance(error.filename, str) else path
            raise DataError(f"{named} cannot be read: {error.strerror}; {_NOT_OF_THE_FILE[error.errno]}") from error
        raise DataError(
            f"{path} cannot be read as {kind}: it is damaged or of another type ({type(error).__name__}: {error})"
        ) from error
