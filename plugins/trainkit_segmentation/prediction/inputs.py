"""Finds the images of new cases in the files and folders that a user names, by the names of the training data's files.

An image is one file with all channels, or a file for each channel, whose names end as in the training data
(``…_0000``, ``…_flair``). Files of single channels that differ in nothing but that ending are one case. A folder that
is one image, such as the slices of a scan, counts as a file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        for are_folders, paths in itertools.groupby(inputs, key=_is_folder):
            of_folders = (item for path in paths for item in self._in_folder(path, left))
            for item in of_folders if are_folders else self._of_named(list(paths)):
                known = items.setdefault(item.name, item)
                if known.paths != item.paths:
                    raise DataError(
                        f"two inputs are called {item.name}: {known.paths[0]} and {item.paths[0]}. Predict them into "
                        "two folders"
                    )
        if not items:
            raise DataError(f"there is no image in {some_of(list(map(str, inputs)))}{_hint(inputs)}")
        names = sorted({path.name for path in left})
        return list(items.values()), [f"left out, since they have other channels: {some_of(names)}"] if names else []

    def _in_folder(self, folder: Path, left: list[Path]) -> Iterator[FoundImage]:
        """Yield the cases of a folder: those whose files lie in it, and those that are folders in it."""
        for each in (folder, *(path for path in _listed(folder) if _is_folder(path))):
            files = [path for path in _listed(each) if _is_image(path)]
            whole = [path for path in files if _stem(path) in self.names.whole]
            if whole:
                yield self._whole(composed(each.resolve().name), whole[0])
            elif each is folder or not self.names.whole:
                yield from self._of_files(files, left)

    def _of_named(self, files: Sequence[Path]) -> Iterator[FoundImage]:
        """Yield the cases of files that the user named one by one: none is left out."""
        channels, others = self._grouped([path for path in files if _is_image(path)])
        for folder in dict.fromkeys(folder for folder, _ in channels):
            # The other channels of a case lie beside the one that was named.
            endings = ((path, self._by_ending(path)) for path in _listed(folder) if _is_image(path))
            beside = [path for path, found in endings if found is not None and (folder, found[0]) in channels]
            channels |= self._grouped(beside)[0]
        for (folder, base), there in channels.items():
            yield self._of_channels(folder, base, there)
        for path in others:
            is_in_case = _stem(path) in self.names.whole
            yield self._whole(composed(path.resolve().parent.name) if is_in_case else _name(path), path)
        for path in files:
            if not _is_image(path):
                yield FoundImage(_name(path), (path,), f"{path}: images end in {', '.join(readable_endings())}")

    def _of_files(self, files: Sequence[Path], left: list[Path]) -> Iterator[FoundImage]:
        """Yield the cases that all images of a folder belong to.

        Args:
            files: The images.
            left: Takes in files that are left out.
        """
        channels, others = self._grouped(files)
        for (folder, base), there in channels.items():
            yield self._of_channels(folder, base, there)
        for path in others:
            if channels and len(self.channels) > 1 and _num_channels(path) not in (None, len(self.channels)):
                if not any(base and path.name.startswith(base) for _, base in channels):  # else: a case's segmentation
                    left.append(path)
            else:
                yield self._whole(_name(path), path)

    def _grouped(self, files: Iterable[Path]) -> tuple[dict[tuple[Path, str], dict[int, list[Path]]], list[Path]]:
        """Return (folder, name of a case) -> channel -> its files, and the files that are no single channels."""
        channels: dict[tuple[Path, str], dict[int, list[Path]]] = {}
        others = []
        for path in files:
            if (found := self._channel_of(path)) is None:
                others.append(path)
            else:
                channels.setdefault((path.parent, found[0]), {}).setdefault(found[1], []).append(path)
        return channels, others

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

    def _of_channels(self, folder: Path, base: str, there: Mapping[int, Sequence[Path]]) -> FoundImage:
        """Return the case of files of single channels.

        Args:
            folder: Their folder.
            base: Their names without the endings.
            there: Channel -> its files.
        """
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
        """Return the name of the case of a file, and the channel that it holds; None: it is no single channel."""
        found = self._by_ending(path)
        if found is None or (len(self.channels) == 1 and self._has_siblings(path)):
            return None  # the number is that of the case
        if len(self.channels) > 1 and _num_channels(path) == len(self.channels):
            return None  # a whole image, whatever its name looks like
        return found

    def _by_ending(self, path: Path) -> tuple[str, int] | None:
        """Return the name of a file without the ending of a channel, and its channel; None: it has no such ending."""
        stem = _stem(path)
        several = len(self.channels) > 1
        endings = [(ending, k) for k, some in enumerate(self._endings) for ending in some]
        for ending, k in sorted(endings, key=lambda each: -len(each[0])):
            if stem.lower().endswith(ending.lower()):
                return stem[: len(stem) - len(ending)], k
            if stem.lower() == ending[1:].lower() and several:
                return "", k
        return None

    def _has_siblings(self, path: Path) -> bool:
        """Return whether files beside an image with one channel differ in their last number alone."""
        stem = _stem(path)
        bare = re.sub(r"\d{4}$", "", stem)
        rest = path.name[len(stem) :]
        return bare != stem and any(path.with_name(f"{bare}{n:04d}{rest}").exists() for n in (1, 2))

    def _named_in(self, path: Path, k: int) -> str | None:
        """Return the channel that the words of a file's name say, if it is another one than ``k``."""
        words = set(re.split(r"[\s._-]+", _stem(path).lower()))
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


def _is_folder(path: Path) -> bool:
    """Return whether there may be images in a folder, which is none itself."""
    return path.is_dir() and not _is_image(path)


def _stem(path: Path) -> str:
    """Return the name of an image without its ending; that of a folder, which has none, as it is."""
    return path.resolve().name if path.is_dir() else stem_of(path.name)


def _name(path: Path) -> str:
    return composed(_stem(path))


def _num_channels(path: Path) -> int | None:
    """Return the number of channels of a file; None: it cannot be read, which is said when it is predicted."""
    try:
        return read_header(path).channels
    except DataError:
        return None


def _channels(channels: Sequence[str]) -> str:
    return f"{len(channels)} channel{'s' * (len(channels) > 1)} ({some_of(list(channels))})"


def _hint(inputs: Sequence[Path]) -> str:
    inner = [path.name for each in inputs if each.is_dir() for path in _listed(each) if path.is_dir()]
    there = f": it holds the folders {some_of(sorted(inner))}" if inner else ""
    return f", no file that ends in {' or '.join(readable_endings())}{there}"
