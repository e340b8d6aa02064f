"""What is known of the content of files, remembered for as long as they do not change.

Hashing and counting read a file whole. What came out is kept in the cache folder beside the file's size, times and
inode, and believed while these are the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from xxhash import xxh3_128, xxh3_128_hexdigest

from trainkit import DataError

_T = TypeVar("_T")

_SETTLED_NS = 2_000_000_000  # a file that was changed later than this ago may change again within one tick of its times
_BLOCK = 1 << 22


class FileMemory:
    """Remembers results about files.

    Args:
        folder: Where; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest(self, path: Path) -> str:
        """Return the xxh3-128 of a file's bytes.

        Raises:
            DataError: It cannot be read.
        """
        return self.about(path, "xxh3", _digest)

    def about(self, path: Path, question: str, answer: Callable[[Path], _T]) -> _T:
        """Return ``answer(path)``, from memory where the file is the one that was asked about.

        Args:
            path: The file.
            question: Name of what is asked.
            answer: Finds out; a JSON value.

        Raises:
            DataError: The file cannot be read, or what ``answer`` raises.
        """
        path = path.absolute()
        before = signature(path)
        place = self._place(path)
        known = self._known(place, before)
        if question in known:
            return known[question]  # type: ignore[no-any-return]
        found = answer(path)
        if signature(path) != before:
            raise DataError(f"{path} was changed while it was read; begin again")
        if time.time_ns() - max(before[1:3]) > _SETTLED_NS:
            content = json.dumps({"signature": before, "known": {**known, question: found}})
            temporary = place.with_name(f"{place.name}.{os.getpid()}-{time.monotonic_ns()}")
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text(content, encoding="utf-8")
                temporary.replace(place)
            except OSError as error:
                raise DataError(f"{self._folder} cannot be written: {error}; set data.cache.folder") from error
        return found

    def _place(self, path: Path) -> Path:
        name = xxh3_128_hexdigest(os.fsencode(path))
        return self._folder / name[:2] / f"{name}.json"

    def _known(self, place: Path, wanted: list[int]) -> Mapping[str, Any]:
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing is remembered; what it says is found out anew
            return {}
        return content["known"] if content["signature"] == wanted else {}


def signature(path: Path) -> list[int]:
    """Return what changes whenever a file does: size, times of content and inode, inode.

    Raises:
        DataError: There is no such file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _digest(path: Path) -> str:
    digest = xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()
