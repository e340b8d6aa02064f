"""Lets a group of users share a folder: what is made in it may be used by whoever may use the folder itself.

A new file or folder gets its permissions from the umask of the user who makes it, which often keeps the group from
writing. In a folder that its owner opened to a group (``chmod g+ws folder``), all files should be open to the group.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OF_OTHERS = 0o077


def make_shared(folder: Path, root: Path) -> None:
    """Make a folder below ``root``, and those between, with at least the permissions that ``root`` gives to others.

    Raises:
        OSError: The folder cannot be made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     os.chmod(root, 0o2770)
        ...     make_shared(Path(root, "a", "b"), Path(root))
        ...     oct(Path(root, "a", "b").stat().st_mode & 0o070)
        '0o70'
    """
    if folder.is_dir():
        return
    if folder == root:
        root.mkdir(parents=True, exist_ok=True)
        return
    make_shared(folder.parent, root)
    folder.mkdir(exist_ok=True)
    _open_to(folder, root, _OF_OTHERS | stat.S_ISGID)


def share(file: Path, root: Path) -> None:
    """Give others at least the permissions to read and write a file that they have in the folder ``root``.

    A file of somebody else stays as it is.
    """
    _open_to(file, root, 0o066)


def _open_to(path: Path, root: Path, mask: int) -> None:
    now = path.stat()
    wanted = stat.S_IMODE(now.st_mode) | (root.stat().st_mode & mask)
    if wanted != stat.S_IMODE(now.st_mode) and now.st_uid == os.geteuid():
        path.chmod(wanted)
