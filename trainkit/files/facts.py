"""Remembers facts about a file (its digest, its label counts) until the file changes.

Computing such a fact reads the whole file. The result is stored as JSON in a folder, together with the file's size,
times and inode, and is used as long as these are the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from xxhash import xxh3_128, xxh3_128_hexdigest

from trainkit.errors import DataError
from trainkit.files.writing import written_whole

_T = TypeVar("_T")

_SETTLED_NS = 2_000_000_000  # a file that changed more recently than this may change again within one tick of its times
_BLOCK = 1 << 22


class FileFacts:
    """Facts about files, stored in a folder that several processes may share.

    Args:
        folder: The folder; it is created when it is needed.
        setting: The setting of the recipe that gives the folder, for error messages.
    """

    def __init__(self, folder: Path, setting: str = "data.cache.folder") -> None:
        self._folder = folder
        self._setting = setting

    def digest(self, path: Path) -> str:
        """Return the xxh3-128 of a file's bytes.

        Raises:
            DataError: The file cannot be read.
        """
        return self.remember(path, "xxh3", _digest)

    def remember(self, path: Path, key: str, compute: Callable[[Path], _T]) -> _T:
        """Return ``compute(path)``, or the stored result if the file has not changed since it was computed.

        Args:
            path: The file.
            key: Name of the fact.
            compute: Computes the fact, a JSON value, from the file.

        Raises:
            DataError: The file cannot be read, or changed while it was read. What ``compute`` raises is raised too.
        """
        path = path.absolute()
        before = _signature(path)
        store = self._store(path)
        known = self._stored_facts(store, before)
        if key in known:
            return known[key]  # type: ignore[no-any-return]
        fact = compute(path)
        if _signature(path) != before:
            raise DataError(f"{path} was changed while it was read; start again")
        if time.time_ns() - max(before[1:3]) > _SETTLED_NS:
            content = json.dumps({"signature": before, "known": {**known, key: fact}})
            try:
                store.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(store) as new:
                    new.write_text(content, encoding="utf-8")
            except OSError as error:
                raise DataError(f"{self._folder} cannot be written: {error}; set {self._setting}") from error
        return fact

    def _store(self, path: Path) -> Path:
        """Return the JSON file that holds the facts about a file."""
        name = xxh3_128_hexdigest(os.fsencode(path))
        return self._folder / name[:2] / f"{name}.json"

    def _stored_facts(self, store: Path, wanted: list[int]) -> Mapping[str, Any]:
        try:
            content = json.loads(store.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing is stored: the fact is computed
            return {}
        return content["known"] if content["signature"] == wanted else {}


def _signature(path: Path) -> list[int]:
    """Return numbers that change whenever a file does: size, times of content and inode, inode."""
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
