"""Reads arrays from HDF5 files, none of which is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, did_you_mean, free_host_memory, guarded_reading, shape_in_words

_MOST_LISTED = 30
_BEST_COMPRESSION = 1100  # deflate makes at best one byte of 1032
_BOUNDED_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_CHUNK_CACHE = 2**24  # bytes of unpacked chunks that HDF5 keeps, for neighbours that are asked for next


class HDF5File:
    """An open HDF5 file, as an `ArrayFile`.

    Args:
        path: The file.
        setting: The setting that names it.

    Raises:
        DataError: It is not there, or is no HDF5 file.
    """

    random_access = True

    def __init__(self, path: Path, setting: str = "data.path") -> None:
        self.source, self._path, self._setting = str(path), path, setting
        if find_spec("hdf5plugin") is not None:
            import_module("hdf5plugin")  # teaches HDF5 the compressions that detectors write
        with self.reading():
            self._file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        return guarded_reading(self._path, "an HDF5 file", self._setting)

    def stored(self, name: str) -> h5py.Dataset:
        """Return a dataset of numbers, after checks that it is harmless.

        Raises:
            DataError: It is missing (lists those there are), a link, stored elsewhere, declared larger than it can be,
                or packed in a way that cannot be read here.
        """
        dataset = self._follow(name)
        where = f'{self.source}: dataset "{name}"'
        if dataset.is_virtual or dataset.external:
            raise DataError(
                f"{where} keeps its values in other files, which is refused; copy it into one file (h5repack)"
            )
        if dataset.dtype.kind not in "iufcb":
            raise DataError(f"{where} must hold numbers, it holds {dataset.dtype}")
        declared, stored = prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if declared > _most_unpacked(dataset):
            raise DataError(
                f"{where} declares {declared:,} bytes ({shape_in_words(dataset.shape)} of {dataset.dtype}), but the "
                f"file holds only {stored:,} for it: it is damaged, unfinished, or made to do harm"
            )
        if dataset.chunks is not None:
            chunk = prod(dataset.chunks) * dataset.dtype.itemsize
            if chunk > max(free_host_memory() // 2, _CHUNK_CACHE):
                raise DataError(
                    f"{where} is stored in pieces of {bytes_in_words(chunk)}, and each must be read as a whole, but "
                    f"only {bytes_in_words(free_host_memory())} of memory are free; store it in smaller ones "
                    "(h5repack -l CHUNK=…)"
                )
            self._unpackable(dataset, where)
        return dataset

    def array(self, name: str) -> NDArray[Any]:
        """Read a whole dataset. Raises as `stored` does, and if it does not fit into memory."""
        dataset = self.stored(name)
        needed, free = prod(dataset.shape) * dataset.dtype.itemsize, free_host_memory()
        if needed > free:
            raise DataError(
                f'{self.source}: dataset "{name}" ({shape_in_words(dataset.shape)}) takes {bytes_in_words(needed)}, '
                f"but only {bytes_in_words(free)} of memory are free; is it the right one?"
            )
        return np.asarray(dataset[()])

    def first(self, names: Iterable[str]) -> str | None:
        """Return the first of these datasets that the file holds itself, not as a soft or external link."""
        for name in names:
            at: Any = self._file
            for step in name.split("/"):
                link = at.get(step, getlink=True) if isinstance(at, h5py.Group) and step in list(at.keys()) else None
                at = at[step] if isinstance(link, h5py.HardLink) else None
            if isinstance(at, h5py.Dataset):
                return name
        return None

    def units(self, name: str) -> str | None:
        """Return the attribute "units" of a dataset, in lower case; None: it has none."""
        value = self._follow(name).attrs.get("units")
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.ravel()[0]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return value.strip().lower() if isinstance(value, str) else None

    def missing(self, what: str) -> DataError:
        """Return the error for something that is in none of its usual places; it lists the datasets."""
        return DataError(f"{self.source} {what}\n{_list(self._datasets())}")

    def _follow(self, name: str) -> h5py.Dataset:
        """Walk to a dataset along hard links alone, which cannot lead out of the file."""
        at: Any = self._file
        for step in (parts := [part for part in name.split("/") if part]):
            link = at.get(step, getlink=True) if isinstance(at, h5py.Group) and step in list(at.keys()) else None
            if link is None:
                found = self._datasets()
                raise DataError(
                    f'{self.source} has no dataset "{name}"; {did_you_mean("/".join(parts), found)}\n{_list(found)}'
                )
            if not isinstance(link, h5py.HardLink):
                raise DataError(
                    f'{self.source}: "{name}" leads over a soft or external link ("{step}"), which is refused; name '
                    "the dataset itself"
                )
            at = at[step]
        if not isinstance(at, h5py.Dataset):
            raise DataError(f'{self.source}: "{name}" is a group, not a dataset.\n{_list(self._datasets())}')
        return at

    def _datasets(self) -> dict[str, tuple[int, ...]]:
        """Return the datasets of the file and their shapes; visiting follows no soft or external link."""
        found: dict[str, tuple[int, ...]] = {}

        def note(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item.shape

        self._file.visititems(note)
        return found

    def _unpackable(self, dataset: h5py.Dataset, where: str) -> None:
        """Check that the dataset's compression is available here."""
        settings = dataset.id.get_create_plist()
        for number in range(settings.get_nfilters()):
            code, _, _, name = settings.get_filter(number)
            if not h5py.h5z.filter_avail(code):
                raise DataError(
                    f"{where} is packed with filter {code} ({name.decode('utf-8', 'replace')}), which HDF5 does not "
                    "know here: pip install 'trainkit[ptychography]' brings hdf5plugin, which knows those of detectors"
                )


def _list(found: dict[str, tuple[int, ...]]) -> str:
    lines = [f"  {name} {shape}" for name, shape in list(found.items())[:_MOST_LISTED]]
    if len(found) > _MOST_LISTED:
        lines.append(f"  … and {len(found) - _MOST_LISTED} more")
    return "\n".join(["The datasets are:", *lines]) if lines else "The file has no datasets."


def _most_unpacked(dataset: h5py.Dataset) -> int:
    """Return how many bytes the stored bytes of a dataset can be at most, once they are unpacked."""
    stored: int = dataset.id.get_storage_size()
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if filters <= _BOUNDED_FILTERS:
        return _BEST_COMPRESSION * stored
    # Others, such as Zstandard, have no bound: a chunk of zeros takes a few bytes. But each chunk must be there.
    num_chunks: int = dataset.id.get_num_chunks()
    chunk: int = prod(dataset.chunks) * dataset.dtype.itemsize
    return num_chunks * chunk
