"""Finds the images of new cases in the files and folders that a user names, by the names of the training data's files.

An image is one file with all channels, or a file for each channel, whose names end as in the training data
(``…_0000``, ``…_flair``). Files of single channels that differ in nothing but that ending are one case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from trainkit import DataError, some_of
from trainkit_segmentation.cases.image_names import ImageNames, numbered
from trainkit_segmentation.files.images import can_be_read, read_header, readable_endings
from trainkit_segmentation.spelling import composed, stem_of


@attrs.frozen
class FoundImage:
    """An image that was found.

    Attributes:
        name: Name of its case.
        paths: One file (or folder) with all channels, or one for each channel.
        problem: Why it cannot be predicted; None: nothing is known against it.
    """

    name: str
    paths: tuple[Path, ...]
    problem: str | None = None


@attrs.frozen
class ImageFinder:
    """Finds images.

    Attributes:
        channels: Names of the channels of an image.
        names: How the files of the training data's images are called.
    """

    channels: tuple[str, ...]
    names: ImageNames

    def find(self, inputs: Iterable[Path]) -> tuple[list[FoundImage], list[str]]:
        """Return the cases in files and folders, and sentences about files that are left out.

        Raises:
            DataError: There is no image.
        """
        inputs = list(inputs)
        items: dict[str, FoundImage] = {}
        left: list[Path] = []
        for path in inputs:
            found = self._in_folder(path, left) if path.is_dir() else self._of_files([path], left, named=True)
            for item in found:
                known = items.setdefault(item.name, item)
                if known.paths != item.paths:
                    raise DataError(
                        f"two inputs are called {item.name}: {_first(known)} and {_first(item)}. Predict them into two "
                        "folders"
                    )
        if not items:
            raise DataError(f"there is no image in {some_of(list(map(str, inputs)))}{_hint(inputs)}")
        names = sorted({path.name for path in left})
        return list(items.values()), [f"left out, since they have other channels: {some_of(names)}"] if names else []

    def _in_folder(self, folder: Path, left: list[Path]) -> Iterator[FoundImage]:
        """Yield the cases of a folder: those whose files lie in it, and those that are folders in it."""
        for each in (folder, *(path for path in _listed(folder) if path.is_dir())):
            if _is_image(each):  # such as the slices of a scan
                yield self._whole(composed(each.resolve().name), each)
                continue
            files = [path for path in _listed(each) if _is_image(path) and not path.is_dir()]
            whole = [path for path in files if stem_of(path.name) in self.names.whole]
            if whole:
                yield self._whole(composed(each.resolve().name), whole[0])
            elif each is folder or not self.names.whole:
                yield from self._of_files(files, left)

    def _of_files(self, files: Sequence[Path], left: list[Path], named: bool = False) -> Iterator[FoundImage]:
        """Yield the cases that files belong to.

        Args:
            files: The files.
            left: Takes in files that are left out.
            named: Whether the user named each of them, so that none is left out.
        """
        bases: dict[tuple[Path, str], None] = {}
        others = []
        for path in files:
            if not _is_image(path):
                yield FoundImage(_name(path), (path,), f"{path}: images end in {', '.join(readable_endings())}")
            elif (found := self._channel_of(path)) is not None:
                bases[path.parent, found[0]] = None
            else:
                others.append(path)
        for folder, base in bases:
            yield self._of_channels(folder, base)
        several = len(self.channels) > 1
        for path in others:
            if named and stem_of(path.name) in self.names.whole:
                yield self._whole(composed(path.resolve().parent.name), path)
            elif several and bases and not named and _num_channels(path) not in (None, len(self.channels)):
                if not any(base and path.name.startswith(base) for _, base in bases):  # else: a case's segmentation
                    left.append(path)
            else:
                yield self._whole(_name(path), path)

    def _whole(self, name: str, path: Path) -> FoundImage:
        """Return the case of a file with all channels."""
        number = _num_channels(path)
        problem = None
        if number is not None and number != len(self.channels):
            one = f"the network takes {_channels(self.channels)}, but {path} has {number}"
            how = (
                f"; a file for each channel is called …{self._shown(0)}, …{self._shown(1)}" if self.channels[1:] else ""
            )
            problem = one + how
        return FoundImage(name, (path,), problem)

    def _of_channels(self, folder: Path, base: str) -> FoundImage:
        """Return the case of files of single channels."""
        there: dict[int, list[Path]] = {}
        for path in _listed(folder):
            found = self._channel_of(path) if _is_image(path) else None
            if found is not None and found[0] == base:
                there.setdefault(found[1], []).append(path)
        name = composed(base) or composed(folder.resolve().name)
        files = tuple(path for k in sorted(there) for path in there[k])
        problems = []
        for k, channel in enumerate(self.channels):
            if k not in there:
                have = ", ".join(path.name for path in files)
                problems.append(f"the channel {channel} is missing: there is no {base}…{self._shown(k)} beside {have}")
            elif len(there[k]) > 1:
                problems.append(f"two files for the channel {channel}: {', '.join(path.name for path in there[k])}")
            elif wrong := self._named_in(there[k][0], k):
                problems.append(
                    f"{there[k][0].name} is channel {k}, {channel}, by its ending, but its name says {wrong}: the "
                    "files seem to be in another order than those of the training data"
                )
        return FoundImage(name, files, f"in {folder}: {'; '.join(problems)}" if problems else None)

    def _channel_of(self, path: Path) -> tuple[str, int] | None:
        """Return the name of a file without the ending of its channel, and the channel; None: it has no such ending."""
        stem = stem_of(path.name)
        several = len(self.channels) > 1
        if several and _num_channels(path) == len(self.channels):
            return None  # a whole image, whatever its name looks like
        if not several and self._has_siblings(path):
            return None  # the number is that of the case
        endings = [(ending, k) for k, some in enumerate(self._endings) for ending in some]
        for ending, k in sorted(endings, key=lambda each: -len(each[0])):
            if stem.lower().endswith(ending.lower()):
                return stem[: len(stem) - len(ending)], k
            if stem.lower() == ending[1:].lower() and several:
                return "", k
        return None

    def _has_siblings(self, path: Path) -> bool:
        """Return whether files beside an image with one channel differ in their last number alone."""
        stem = stem_of(path.name)
        bare = re.sub(r"\d{4}$", "", stem)
        rest = path.name[len(stem) :]
        return bare != stem and any(path.with_name(f"{bare}{n:04d}{rest}").exists() for n in (1, 2))

    def _named_in(self, path: Path, k: int) -> str | None:
        """Return the channel that the words of a file's name say, if it is another one than ``k``."""
        words = set(re.split(r"[\s._-]+", stem_of(path.name).lower()))
        said = [channel for channel in self.channels if channel.lower() in words and not channel.isdigit()]
        return said[0] if said and self.channels[k] not in said else None

    @property
    def _endings(self) -> tuple[tuple[str, ...], ...]:
        return self.names.endings or numbered(self.channels)

    def _shown(self, k: int) -> str:
        return f"{self._endings[k][0]}.nii.gz"


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    """Return whether a reader knows a file, or a folder that is one image."""
    if not path.is_dir():
        return path.name.lower().endswith(readable_endings())
    return can_be_read(path)


def _name(path: Path) -> str:
    return composed(stem_of(path.name))


def _num_channels(path: Path) -> int | None:
    """Return the number of channels of a file; None: it cannot be read, which is said when it is predicted."""
    try:
        return read_header(path).channels
    except DataError:
        return None


def _channels(channels: Sequence[str]) -> str:
    return f"{len(channels)} channel{'s' * (len(channels) > 1)} ({some_of(list(channels))})"


def _first(item: FoundImage) -> Path:
    return item.paths[0]


def _hint(inputs: Sequence[Path]) -> str:
    inner = [path.name for each in inputs if each.is_dir() for path in _listed(each) if path.is_dir()]
    there = f": it holds the folders {some_of(sorted(inner))}" if inner else ""
    return f", no file that ends in {' or '.join(readable_endings())}{there}"
