"""Tells the data of a run from other data: a digest of the files that the settings of the data name.

It is computed at each start, so it must take much less than a second: of a large file, a few blocks are read, and of a
folder, the names and sizes of its files and the beginnings of some. Times and places of files do not matter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_128

from trainkit.contracts import HARMLESS
from trainkit.errors import blame
from trainkit.recipe.fields import settings_fields
from trainkit.recipe.origin import dotted
from trainkit.recipe.tables import walk_settings
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe

OF_SPLIT = "the items of {}"
"""What a part of a fingerprint is called that tells the items of a split from others."""

_BLOCK = 1 << 16
_BLOCKS = 64  # of a larger file, this many are read, spread evenly
_WHOLE = 1 << 26  # a file of at most so many bytes is read to its end
_MOST_FILES = 100_000
_SAMPLED_FILES = 256


def data_fingerprint(recipe: Recipe, data: Any, data_name: str) -> dict[str, Any]:
    """Return what tells the opened data from other data, as JSON values.

    Data may have a method ``fingerprint() -> Mapping[str, JSON value]``, for example a digest of the cases of each
    split. It then stands in for what is computed here of folders, in which there may be files that are not used.
    Data that divide their own items into splits may have ``split_fingerprint() -> Mapping[str, JSON value]``: split ->
    what tells its items from others. Without both, nobody can tell whether values of two runs are of the same items.

    Args:
        recipe: The recipe.
        data: The opened data.
        data_name: Name of the data, for messages.

    Raises:
        PartError: A method of the data failed, or did not return JSON values.
    """
    found: dict[str, Any] = {}
    own, splits = (getattr(data, name, None) for name in ("fingerprint", "split_fingerprint"))
    for name, method, called in (("fingerprint", own, "{}"), ("split_fingerprint", splits, OF_SPLIT)):
        if method is not None:
            try:
                said = json.loads(json.dumps(dict(method())))
            except Exception as error:
                blame(error, f"{data_name}, in {name}")
            found |= {called.format(key): value for key, value in said.items()}
    for where, settings, _ in walk_settings(recipe.data, ("data",)):
        for key, field in settings_fields(type(settings)).items():
            value = getattr(settings, field.name)
            if field.metadata.items() >= HARMLESS.items():
                continue  # such as the folder of a cache
            paths = value if isinstance(value, list | tuple) else (value,)
            described = [_described(path, own is None) for path in paths if isinstance(path, Path)]
            if any(described):
                found[dotted((*where, key))] = described if isinstance(value, list | tuple) else described[0]
    return found


def other_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each part of a fingerprint that differs; parts that only one of the two has are left out."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    for name in changed:
        if name.startswith("data."):
            yield f"warning: the data has changed: {name} is {_words(now[name])}, was {_words(before[name])}"
    if others := [name for name in changed if not name.startswith("data.")]:
        yield f"warning: the data has changed: it differs in {some_of(others)}"


def _words(described: Any) -> str:
    if isinstance(described, list):
        return "; ".join(_words(each) for each in described)
    if not described:
        return "a folder"
    what = f"{described['files']} files" if "files" in described else "a file"
    return f"{what} of {described['bytes']:,} bytes (content {described['digest'][:8]})"


def _described(path: Path, folders: bool) -> dict[str, Any] | None:
    """Return number and size of the files at a path, and a digest of what was looked at; None: it was left out."""
    try:
        if path.is_file():
            size = path.stat().st_size
            return {"bytes": size, "digest": _sample(path, _BLOCKS if size > _WHOLE else _WHOLE // _BLOCK)}
        if not (folders and path.is_dir()):
            return None
        sizes = sorted(islice(_files(path), _MOST_FILES))
    except OSError:
        return None  # that it cannot be read is for the data to say
    digest = xxh3_128()
    for number, (name, size) in enumerate(sizes):
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        if number % -(-len(sizes) // _SAMPLED_FILES) == 0:
            digest.update(_sample(path / name, 2).encode())
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest.hexdigest()}


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the name below a folder, and the size, of each file in it that is not hidden."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield str(path.relative_to(folder)), path.stat().st_size


def _sample(path: Path, blocks: int) -> str:
    """Return a digest of a file, or of blocks of it, spread evenly from its first to its last byte."""
    digest = xxh3_128()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        starts: Iterable[int] = range(0, size, _BLOCK)
        if size > blocks * _BLOCK:
            starts = (number * (size - _BLOCK) // (blocks - 1) for number in range(blocks))
        for start in starts:
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
