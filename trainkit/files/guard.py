"""Turns whatever a parser raises on a damaged or hostile file into one DataError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainkit.errors import DataError


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
        raise DataError(
            f"{path} cannot be read as {kind}: it is damaged or of another type ({type(error).__name__}: {error})"
        ) from error
