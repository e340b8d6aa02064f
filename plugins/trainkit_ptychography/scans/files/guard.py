"""What a damaged or hostile file makes a library raise, turned into one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainkit import DataError


@contextmanager
def reading(path: Path, kind: str, setting: str = "data.path") -> Iterator[None]:
    """Turn whatever is raised while a file is read into a DataError that names it.

    Parsers raise nearly anything (KeyError, zlib.error, UnicodeDecodeError, …) when single bytes of a file are wrong.

    Args:
        path: The file.
        kind: What it should be, as "an HDF5 file".
        setting: What of the recipe names it.

    Raises:
        DataError: It is not there, or something went wrong while it was read.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} ({setting})")
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as {kind}; it is damaged, or something else ({type(error).__name__}: {error})"
        ) from error
