"""Reads small files that may be anything: a pipe that nobody writes to, a device without end, a file of gigabytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_small(path: Path, what: str, most_bytes: int) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        what: What it is, for messages, for example "a recipe".
        most_bytes: A larger file is refused.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, is too large, or its name is not possible.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would block

    with open(path, "rb", opener=opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"is a pipe or a device, and {what} must be a regular file")
        if found.st_size > most_bytes:
            raise ValueError(f"has {found.st_size} bytes, and {what} may have {most_bytes}")
        return file.read(most_bytes)
