"""Remembers facts about a file (its digest, its label counts) until the file changes.

Computing such a fact reads the whole file. The result is stored as JSON in a folder, together with the file's size,
times and inode, and is used as long as these are the same. What is stored has a digest of its own: a fact that is not
as it was written is computed anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from xxhash import xxh3_128, xxh3_128_hexdigest

from trainkit.errors import DataError
from trainkit.files.reading import read_small
from trainkit.files.sharing import make_shared, share
from trainkit.files.writing import written_whole

_T = TypeVar("_T")

_SETTLED_NS = 2_000_000_000  # a file that changed more recently than this may change again within one tick of its times
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_log = logging.getLogger("trainkit")


class FileFacts:
    """Facts about files, stored in a folder that several processes, and the users of a group, may share.

    If the folder can only be read, the facts in it are used, and others are not stored.

    Args:
        folder: The folder; it is created when it is needed.
        setting: The setting of the recipe that gives the folder, for error messages.
        root: What is stored is open to those who may use this folder; ``folder`` if not given.
    """

    def __init__(self, folder: Path, setting: str = "data.cache.folder", root: Path | None = None) -> None:
        self._folder = folder
        self._setting = setting
        self._root = root or folder
        self._is_read_only = False

    def digest(self, path: Path) -> str:
        """Return the xxh3-128 of a file's bytes.

        Raises:
            DataError: The file cannot be read.
        """
        return self.remember(path, "xxh3", file_digest)

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
            self._write(store, {"signature": before, "known": {**known, key: fact}})
        return fact

    def _write(self, store: Path, content: Mapping[str, Any]) -> None:
        if self._is_read_only:
            return
        try:
            make_shared(store.parent, self._root)
            with written_whole(store) as new:
                new.write_text(json.dumps({**content, "xxh3": _digest_of(content)}), encoding="utf-8")
            share(store, self._root)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise DataError(f"{self._folder} cannot be written: {error}; set {self._setting}") from error
            self._is_read_only = True
            _log.info(
                "%s can only be read: the digests of files that it lacks are computed at each start", self._folder
            )

    def _store(self, path: Path) -> Path:
        """Return the JSON file that holds the facts about a file."""
        name = xxh3_128_hexdigest(os.fsencode(path))
        return self._folder / name[:2] / f"{name}.json"

    def _stored_facts(self, store: Path, wanted: list[int]) -> Mapping[str, Any]:
        try:
            content = json.loads(read_small(store, "a record of facts", 1 << 26))
            as_written = content.pop("xxh3") == _digest_of(content)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}  # nothing is stored, or it is damaged: the fact is computed
        return content["known"] if as_written and content["signature"] == wanted else {}


def _signature(path: Path) -> list[int]:
    """Return numbers that change whenever a file does: size, times of content and inode, inode."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _digest_of(content: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))
    return xxh3_128_hexdigest(json.dumps(as_read, sort_keys=True).encode())


def file_digest(path: Path) -> str:
    """Return the xxh3-128 of a file's bytes.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, xxh3_128).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
