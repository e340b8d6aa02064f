"""Reads arrays from HDF5 files, none of which is trusted.

A file may hold links and virtual datasets. They are followed inside the file, and into those other files that the
recipe names, and nowhere else: HDF5 itself would open any file that a link names. What a file declares is
held against what it really holds before anything is read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trainkit import (
    DataError,
    bytes_in_words,
    did_you_mean,
    free_host_memory,
    guarded_reading,
    shape_in_words,
    without_controls,
)
from trainkit_ptychography.scans.files.foreign import refuse_foreign
from trainkit_ptychography.scans.files.limits import refuse_one_value
from trainkit_ptychography.scans.files.on_disk import Header, OnDisk
from trainkit_ptychography.scans.files.trial_process import survives
from trainkit_ptychography.scans.patterns import Stored

_MOST_LISTED = 30
_MOST_VISITED, _DEEPEST = 2000, 32  # objects and levels that are looked at to list what a file holds
_MOST_STEPS = 1000  # links and groups on the way to a dataset, and sources of a virtual one
_MOST_LINKS = 16  # links one after the other
_MOST_CHUNKS = 500_000  # that are looked at before a dataset is read
_BEST_COMPRESSION = 1100  # deflate makes at best one byte of 1032
_BOUNDED_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_CHUNK_CACHE = 2**24  # bytes of unpacked chunks that HDF5 keeps, for neighbours that are asked for next
_SECONDS_TO_OPEN, _SECONDS_TO_CHECK = 0.5, 5.0  # of computing, in a process of its own
_COMPLEX = ({"real", "imag"}, {"r", "i"}, {"re", "im"})


class NotNamedError(DataError):
    """A link leads to a file that the recipe does not name."""


class HDF5File:
    """An open HDF5 file, as an `ArrayFile`.

    Args:
        path: The file.
        setting: The setting that names it.
        linked: Other files that its links and virtual datasets may lead to.

    Raises:
        DataError: It is not there, or is no HDF5 file.
    """

    random_access = True

    def __init__(self, path: Path, setting: str = "data.path", linked: Sequence[Path] = ()) -> None:
        self.source, self._path, self._setting = str(path), path, setting
        self._linked = {os.path.realpath(each) for each in linked}
        self._others: dict[str, HDF5File] = {}
        self._checked: set[str] = set()
        refuse_foreign(path, "hdf5", setting)
        if find_spec("hdf5plugin") is not None:
            import_module("hdf5plugin")  # teaches HDF5 the compressions that detectors write
        with self.reading():
            self._tried(self._open, _SECONDS_TO_OPEN)
            self._file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        return guarded_reading(self._path, "an HDF5 file", self._setting)

    def stored(self, name: str) -> Stored:
        """Return a dataset of numbers, after checks that it is harmless; one that is a stretch of the file as such.

        Raises:
            DataError: It is missing (lists those there are), in a file that the recipe does not name, declared larger
                than it can be, or packed in a way that cannot be read here.
        """
        dataset = self._harmless(name)
        return _in_one_stretch(dataset) or dataset

    def array(self, name: str) -> NDArray[Any]:
        """Read a whole dataset; pairs of real and imaginary parts become complex numbers.

        Raises:
            DataError: As `stored` does, and if it does not fit into memory.
        """
        dataset = self._harmless(name)
        needed, free = prod(dataset.shape) * dataset.dtype.itemsize, free_host_memory()
        if needed > free:
            raise DataError(
                f'{self.source}: dataset "{without_controls(name)}" ({shape_in_words(dataset.shape)}) takes '
                f"{bytes_in_words(needed)}, but only {bytes_in_words(free)} of memory are free; is it the right one?"
            )
        return _as_numbers(np.asarray(dataset[()]))

    def first(self, names: Iterable[str]) -> str | None:
        """Return the first of these datasets that can be reached, in this file or one that the recipe names.

        Raises:
            DataError: None can, and one of them leads to a file that the recipe does not name.
        """
        refused: NotNamedError | None = None
        for name in names:
            try:
                self._follow(name)
            except NotNamedError as error:
                refused = refused or error
            except DataError:
                continue
            else:
                return name
        if refused is not None:
            raise refused
        return None

    def units(self, name: str) -> str | None:
        """Return the attribute "units" of a dataset, in lower case; None: it has none."""
        text = self.attribute(name, "units")
        return None if text is None else text.strip().lower()

    def attribute(self, name: str, attribute: str) -> str | None:
        """Return an attribute of a dataset that is a text; None: it has none."""
        attributes = self._follow(name)[1].attrs
        if attribute not in attributes or attributes.get_id(attribute).get_storage_size() > 2**16:
            return None
        value = attributes[attribute]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.ravel()[0]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return str(value) if isinstance(value, str) else None

    def numbers(self) -> dict[str, float]:
        """Return the attributes of the file itself that are single numbers."""
        attributes = self._file.attrs
        names = [name for name in list(attributes)[:_MOST_VISITED] if attributes.get_id(name).get_storage_size() <= 16]
        values = {name: np.asarray(attributes[name]) for name in names}
        return {
            name: float(value.ravel()[0])
            for name, value in values.items()
            if value.size == 1 and value.dtype.kind in "iuf"
        }

    def vector(self, name: str) -> tuple[float, ...] | None:
        """Return an attribute of the file itself that is a few numbers; None: it has none."""
        attributes = self._file.attrs
        if name not in attributes or attributes.get_id(name).get_storage_size() > 2**10:
            return None
        value = np.asarray(attributes[name])
        return tuple(value.ravel().astype(np.float64).tolist()) if value.dtype.kind in "iuf" else None

    def is_matlab(self, name: str) -> bool:
        """Return whether Matlab wrote a dataset: then the order of its axes is reversed."""
        names = self._follow(name)[1].dtype.names
        if self.attribute(name, "MATLAB_class") is not None or names == ("real", "imag"):
            return True
        with self._path.open("rb") as file:
            return file.read(10) == b"MATLAB 7.3"

    def text(self, name: str) -> str | None:
        """Return a dataset that is a short text; None: it is not there, or something else."""
        try:
            _, dataset = self._follow(name)
        except DataError:
            return None
        if dataset.is_virtual or dataset.external or dataset.size != 1 or dataset.dtype.kind not in "OS":
            return None
        value = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else None
        value = value.ravel()[0] if isinstance(value, np.ndarray) else value
        return value if isinstance(value, str) and len(value) < 1000 else None

    def missing(self, what: str) -> DataError:
        """Return the error for something that is in none of its usual places; it lists the datasets."""
        return DataError(f"{self.source} {what}\n{_list(*self.datasets())}")

    def datasets(self) -> tuple[dict[str, tuple[int, ...]], bool]:
        """Return the datasets of the file and their shapes, and whether these are all; no link is followed."""
        found: dict[str, tuple[int, ...]] = {}
        waiting, whole = deque([("", 0, self._file.id)]), True
        seen: set[tuple[int, int]] = set()
        while waiting:
            path, depth, group = waiting.popleft()
            names: list[bytes] = []
            # A value that is returned ends the iteration.
            room = _MOST_VISITED - len(seen)
            group.links.iterate(lambda name, names=names, room=room: names.append(name) or len(names) > room or None)
            for name in names:
                if len(seen) >= _MOST_VISITED:
                    return found, False
                if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                    continue
                item = h5py.h5o.open(group, name)
                place = h5py.h5o.get_info(item)
                if (place.fileno, place.addr) in seen:
                    continue
                seen.add((place.fileno, place.addr))
                at = f"{path}{name.decode('utf-8', 'surrogateescape')}"
                if isinstance(item, h5py.h5d.DatasetID):
                    found[at] = item.shape
                elif isinstance(item, h5py.h5g.GroupID) and depth < _DEEPEST:
                    waiting.append((f"{at}/", depth + 1, item))
                elif isinstance(item, h5py.h5g.GroupID):
                    whole = False
        return found, whole

    # ---- what could hurt the process --------------------------------------------------------------------------------

    def _open(self) -> None:
        self._file = h5py.File(self._path, "r")
        self.datasets()

    def _tried(self, action: Callable[[], object], cpu_seconds: float) -> None:
        """Try something in another process first.

        Raises:
            DataError: That process crashed, or computed for too long.
        """
        if not survives(action, cpu_seconds):
            raise DataError(
                f"{self.source} is damaged, or made to do harm: the HDF5 library crashes, or does not come to an end, "
                "when it reads this file"
            )

    def _harmless(self, name: str) -> h5py.Dataset:
        if name not in self._checked:
            self._tried(lambda: _touch(self._stored(name)), _SECONDS_TO_CHECK)
            self._checked.add(name)
        return self._stored(name)

    def _stored(self, name: str) -> h5py.Dataset:
        file, dataset = self._follow(name)
        file._check(dataset, f'{self.source}: dataset "{without_controls(name)}"', _MOST_LINKS)
        return dataset

    # ---- the way to a dataset ---------------------------------------------------------------------------------------

    def _follow(self, name: str) -> tuple[HDF5File, h5py.Dataset]:
        """Walk to a dataset; return it with the file that holds it."""
        return self._walk(name, name, _MOST_LINKS)

    def _walk(self, name: str, path: str, links: int) -> tuple[HDF5File, h5py.Dataset]:
        """Walk along a path, link by link: HDF5 would follow them anywhere.

        Args:
            name: What was asked for.
            path: Where to go from this file's root.
            links: How many links may still be followed.
        """
        at: Any = self._file
        steps = deque(_steps(path))
        if len(steps) > _MOST_STEPS:
            raise DataError(f"{self.source}: a path of {len(steps)} steps is too long; {_MOST_STEPS} are read")
        while steps:
            step = steps.popleft()
            if not (isinstance(at, h5py.Group) and at.id.links.exists(step.encode("utf-8", "surrogateescape"))):
                found, whole = self.datasets()
                near = without_controls(did_you_mean("/".join(_steps(path)), found))
                raise DataError(
                    f'{self.source} has no dataset "{without_controls(name)}"; {near}\n{_list(found, whole)}'
                )
            link = at.get(step, getlink=True)
            if isinstance(link, h5py.HardLink):
                at = at[step]
                continue
            if links == 0:
                raise DataError(
                    f'{self.source}: "{without_controls(name)}" leads over more than {_MOST_LINKS} links, in a circle'
                )
            links -= 1
            if isinstance(link, h5py.SoftLink):
                steps.extendleft(reversed(_steps(link.path)))
                if len(steps) > _MOST_STEPS:
                    raise DataError(
                        f'{self.source}: the links of "{without_controls(name)}" are too long to be followed'
                    )
                at = self._file if link.path.startswith("/") else at
            elif isinstance(link, h5py.ExternalLink):
                other = self._other(link.filename, f'"{without_controls(name)}" is a link to')
                return other._walk(name, "/".join([link.path, *steps]), links)
            else:
                raise DataError(f'{self.source}: "{without_controls(name)}" leads over a link of an unknown kind')
        if not isinstance(at, h5py.Dataset):
            raise DataError(
                f'{self.source}: "{without_controls(name)}" is a group, not a dataset.\n{_list(*self.datasets())}'
            )
        return self, at

    def _other(self, filename: str, why: str) -> HDF5File:
        """Open another file that this one names, if the recipe names it too.

        Raises:
            DataError: The recipe does not name it, or it cannot be read.
        """
        path = self._path.parent / filename
        real = os.path.realpath(path)
        if real == os.path.realpath(self._path):
            return self
        if real not in self._linked:
            raise NotNamedError(
                f'{self.source}: {why} another file, "{without_controls(filename)}", which the recipe does not name, '
                "and a file must not open others by itself; if you trust it: linked_files = "
                f'["{without_controls(str(path))}"]'
            )
        if real not in self._others:
            other = HDF5File(path, "data.linked_files")
            other._linked, other._others = self._linked, self._others  # each is opened once
            self._others[real] = other
        return self._others[real]

    # ---- what a dataset declares ------------------------------------------------------------------------------------

    def _check(self, dataset: h5py.Dataset, where: str, links: int) -> None:
        """Check that a dataset of this file is harmless. Raises as `stored` does."""
        if dataset.dtype.kind not in "iufcb" and not is_complex_pair(dataset.dtype):
            raise DataError(f"{where} must hold numbers, it holds {without_controls(str(dataset.dtype))[:200]}")
        if dataset.shape is None:
            raise DataError(f"{where} is empty")
        if dataset.external:
            raise DataError(
                f"{where} keeps its values outside of HDF5, in "
                f'"{without_controls(os.fsdecode(dataset.external[0][0]))}"; that is not read: copy it into the file'
            )
        if dataset.is_virtual:
            self._check_virtual(dataset, where, links)
            return
        declared, stored = prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if declared > _most_unpacked(dataset) or stored > self._path.stat().st_size:
            raise DataError(
                f"{where} declares {declared:,} bytes ({shape_in_words(dataset.shape)} of {dataset.dtype}), but the "
                f"file holds only {min(stored, self._path.stat().st_size):,} for it: it is damaged, unfinished, or "
                "made to do harm"
            )
        offset = dataset.id.get_offset()
        if offset is not None and offset + stored > self._path.stat().st_size:
            raise DataError(f"{where} begins where the file ends, or is longer than the file: it is damaged")
        if dataset.chunks is not None:
            chunk = prod(dataset.chunks) * dataset.dtype.itemsize
            if chunk > max(free_host_memory() // 2, _CHUNK_CACHE):
                raise DataError(
                    f"{where} is stored in pieces of {bytes_in_words(chunk)}, and each must be read as a whole, but "
                    f"only {bytes_in_words(free_host_memory())} of memory are free; store it in smaller ones "
                    "(h5repack -l CHUNK=…)"
                )
            self._unpackable(dataset, where)
            self._check_chunks(dataset, where)
            refuse_one_value(where, declared, stored, lambda: _some_chunks(dataset))

    def _check_chunks(self, dataset: h5py.Dataset, where: str) -> None:
        """Check that each piece lies in the file and can be as short or long as it is: HDF5 itself would crash."""
        filters = _filters(dataset)
        packs = bool(filters - {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
        whole, end = prod(dataset.chunks) * dataset.dtype.itemsize, self._path.stat().st_size
        sums = 4 * (h5py.h5z.FILTER_FLETCHER32 in filters)
        num = 0

        def wrong(piece: Any) -> bool | None:
            nonlocal num
            num += 1
            if num > _MOST_CHUNKS:
                return False  # anything but None ends the visit
            least, most = (sums + 1, 2 * whole + 2**16) if packs else (whole, whole + sums)
            inside = all(0 <= at < size for at, size in zip(piece.chunk_offset, dataset.shape, strict=True))
            if inside and least <= piece.size <= most and piece.byte_offset + piece.size <= end:
                return None
            return True

        if dataset.id.get_num_chunks() and dataset.id.chunk_iter(wrong):
            raise DataError(f"{where} has a piece that is not where, or as long as, it can be: the file is damaged")

    def _check_virtual(self, dataset: h5py.Dataset, where: str, links: int) -> None:
        """Check the sources of a virtual dataset, which HDF5 opens by itself when it is read."""
        num = dataset.id.get_create_plist().get_virtual_count()
        if links == 0 or num > _MOST_STEPS:
            raise DataError(
                f"{where} is put together of {num} others, or of others that are themselves put together; at most "
                f"{_MOST_STEPS}, and {_MOST_LINKS} levels, are read: copy it into one dataset"
            )
        held: dict[tuple[str, str], int] = {}
        for source in dataset.virtual_sources():
            if "%b" in source.file_name or "%b" in source.dset_name:
                raise DataError(
                    f'{where} is put together of others by a pattern of names ("{without_controls(source.file_name)}", '
                    f'"{without_controls(source.dset_name)}"), which is not followed: copy it into one dataset'
                )
            file = self
            if source.file_name != ".":
                file = self._other(
                    source.file_name, f"{where.removeprefix(self.source + ': ')} is put together of parts of"
                )
            owner, part = file._walk(source.dset_name, source.dset_name, links - 1)
            owner._check(part, f'{owner.source}: dataset "{without_controls(source.dset_name)}"', links - 1)
            held[owner.source, part.name] = prod(part.shape) * part.dtype.itemsize
        declared = prod(dataset.shape) * dataset.dtype.itemsize
        if declared > 4 * sum(held.values()) + 2**20:
            raise DataError(
                f"{where} declares {declared:,} bytes, but the datasets that it is put together of hold "
                f"{sum(held.values()):,}: parts are missing, or it is made to do harm"
            )

    def _unpackable(self, dataset: h5py.Dataset, where: str) -> None:
        """Check that the dataset's compression is available here."""
        settings = dataset.id.get_create_plist()
        for number in range(settings.get_nfilters()):
            code, _, _, packer = settings.get_filter(number)
            name = without_controls(packer.decode("utf-8", "replace"))
            if not h5py.h5z.filter_avail(code):
                raise DataError(
                    f"{where} is packed with filter {code} ({name}), which HDF5 "
                    "does not know here: pip install 'trainkit[ptychography]' brings hdf5plugin, which knows those of "
                    "detectors"
                )


def is_complex_pair(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is a real and an imaginary part, as Matlab and others write complex numbers."""
    names = dtype.names
    if names is None or len(names) != 2 or {each.lower() for each in names} not in _COMPLEX:
        return False
    return all(dtype[each].kind in "iuf" and not dtype[each].shape for each in names)


def _as_numbers(values: NDArray[Any]) -> NDArray[Any]:
    if not is_complex_pair(values.dtype):
        return values
    real, imaginary = sorted(values.dtype.names or (), key=lambda each: each.lower() in ("imag", "i", "im"))
    single = all(values.dtype[each].kind == "f" and values.dtype[each].itemsize <= 4 for each in (real, imaginary))
    return (values[real] + 1j * values[imaginary]).astype(np.complex64 if single else np.complex128)


def _in_one_stretch(dataset: h5py.Dataset) -> OnDisk | None:
    """Return a dataset as a stretch of its file, of which a part is read ten times as fast as through HDF5.

    Returns:
        None, if it is in chunks, packed, not written yet, in an unusual file, or of numbers that NumPy has otherwise.
    """
    if dataset.chunks is not None or dataset.is_virtual or dataset.external is not None:
        return None
    offset, path = dataset.id.get_offset(), Path(dataset.file.filename)
    is_plain = dataset.dtype.kind in "iuf" and dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype))
    if offset is None or not is_plain or dataset.file.driver != "sec2" or dataset.file.userblock_size:
        return None
    if not path.is_file() or path.stat().st_size < offset + prod(dataset.shape) * dataset.dtype.itemsize:
        return None
    return OnDisk(path, offset, Header(dataset.shape, False, dataset.dtype))


def _touch(dataset: h5py.Dataset) -> None:
    """Read the first and the last value of a dataset, unless that would unpack much."""
    piece = dataset.dtype.itemsize * prod(dataset.chunks or ())
    if dataset.shape and min(dataset.shape) > 0 and piece <= _CHUNK_CACHE:
        for corner in ((0,) * dataset.ndim, tuple(size - 1 for size in dataset.shape)):
            dataset[corner]


def _steps(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _list(found: dict[str, tuple[int, ...]], whole: bool) -> str:
    lines = [f"  {without_controls(name)} {shape}" for name, shape in list(found.items())[:_MOST_LISTED]]
    if len(found) > _MOST_LISTED or not whole:
        lines.append(f"  … and {len(found) - _MOST_LISTED} more" if whole else "  … and more")
    return "\n".join(["The datasets are:", *lines]) if lines else "The file has no datasets."


def _most_unpacked(dataset: h5py.Dataset) -> int:
    """Return how many bytes the stored bytes of a dataset can be at most, once they are unpacked."""
    stored: int = dataset.id.get_storage_size()
    filters = _filters(dataset)
    if not filters:
        return stored
    if filters <= _BOUNDED_FILTERS:
        return _BEST_COMPRESSION * stored
    # Others, such as Zstandard, have no bound: a chunk of zeros takes a few bytes. But each chunk must be there.
    num_chunks: int = dataset.id.get_num_chunks()
    chunk: int = prod(dataset.chunks) * dataset.dtype.itemsize
    return num_chunks * chunk


def _filters(dataset: h5py.Dataset) -> set[int]:
    properties = dataset.id.get_create_plist()
    return {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}


def _some_chunks(dataset: h5py.Dataset) -> Iterable[NDArray[Any]]:
    """Yield a few chunks, from the first to the last."""
    assert dataset.chunks is not None  # only asked for then
    for at in np.linspace(0.0, 1.0, 5):
        corner = [
            int(at * (size - 1)) // piece * piece for size, piece in zip(dataset.shape, dataset.chunks, strict=True)
        ]
        yield dataset[tuple(slice(begin, begin + piece) for begin, piece in zip(corner, dataset.chunks, strict=True))]
