"""Finds the cases of a folder of images beside a folder of labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit import DataError, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import one_value_each
from trainkit_segmentation.data.meanings import number_of_channels, numbered_channels, proposed_classes, proposed_labels
from trainkit_segmentation.files.images import can_be_read
from trainkit_segmentation.spelling import composed, stem_of

if TYPE_CHECKING:
    from trainkit_segmentation.data.image_folder import ImageFolder

_OF_LABEL = re.compile(r"[._ -](seg|segmentation|label|labels|labelmap|mask|masks|gt)$", re.IGNORECASE)
_OF_IMAGE = re.compile(r"[._ -](image|img)$", re.IGNORECASE)
_NUMBERED = re.compile(r"_(\d{4})$")
_BEFORE_CHANNEL = (".", "_", " ", "/", "-")


def find(settings: ImageFolder) -> CaseList:
    """Find the cases.

    Raises:
        DataError: There are no such folders, or no labels.
    """
    image_folder, label_folder = (settings.path / name for name in (settings.image_folder, settings.label_folder))
    _check_folders(settings.path, {"image_folder": image_folder, "label_folder": label_folder})
    labels = {path: _name(path, label_folder, _OF_LABEL) for path in _files(label_folder)}
    images = {path: _name(path, image_folder, _OF_IMAGE) for path in _files(image_folder)}
    if not labels:
        raise DataError(f"{label_folder}: there are no files that can be read as labels")
    of_names = _Images(images, settings.channels or ())
    found: dict[str, tuple[Path, tuple[Path, ...]]] = {}
    problems = []
    for label, name in labels.items():
        of_case = of_names.of_case(name)
        if name in found:
            problems.append(f"{name}: there are two labels, {found[name][0].name} and {label.name}")
        elif not of_case:
            there = [path.name for path in images if path.name.startswith(Path(name).name)]
            hint = f"; there is {some_of(there)}" if there else ""
            problems.append(f"{name}: there is a label, {label.name}, but no image of this name{hint}")
        else:
            found[name] = label, of_case
    used = {image for _, of_case in found.values() for image in of_case}
    first = next(iter(found.values()), (None, ()))[1]
    channels = settings.channels or numbered_channels(number_of_channels([first]) if first else 1)
    if settings.labels is None:
        line = proposed_labels(list(labels))
        raise DataError(f"{settings.path}: the recipe must name the label values: {line}")
    unused = [f"{name} ({path.name})" for path, name in images.items() if path not in used]
    return CaseList(
        str(settings.path),
        tuple(
            FileCase(name, name, of_case, label, channels=len(channels))
            for name, (label, of_case) in sorted(found.items())
        ),
        channels,
        one_value_each(settings.labels),
        problems=tuple(problems),
        doubts=(f"images without a label are left out: {some_of(unused)}",) if unused else (),
    )


def classes_of(folder: Path) -> dict[str, int]:
    """Return names for the values of a few labels of a folder, with the values."""
    return proposed_classes(list(_files(folder)))


def _check_folders(path: Path, folders: dict[str, Path]) -> None:
    for setting, folder in folders.items():
        if not folder.is_dir():
            there = sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
            hint = f"; there are the folders {some_of(there)}: set data.{setting}" if there else ""
            raise DataError(f"{folder}: there is no such folder{hint}")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that can be read, and the sub-folders that are one image."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if can_be_read(path):
            yield path
        elif path.is_dir():
            yield from _files(path)


def _name(path: Path, folder: Path, ending: re.Pattern[str]) -> str:
    """Return the name of a file's case: its path below the folder, without what says that it is an image or a label."""
    stem = path.name if path.is_dir() else stem_of(path.name)
    parent = path.parent.relative_to(folder).as_posix()
    name = composed(ending.sub("", stem) or stem)
    return name if parent == "." else f"{composed(parent)}/{name}"


class _Images:
    """Finds the files of a case's image by the name of the case.

    Args:
        names: File -> its name, see `_name`.
        channels: Names of the channels, which names of files may end in.
    """

    def __init__(self, names: Mapping[Path, str], channels: Sequence[str]) -> None:
        self._channels = channels
        self._whole: dict[str, list[Path]] = {}
        self._numbered: dict[str, dict[int, Path]] = {}
        self._named: dict[tuple[str, str], list[Path]] = {}  # upper and lower case count as the same
        self._inside: dict[str, list[Path]] = {}
        for path, name in names.items():
            self._whole.setdefault(name, []).append(path)
            if match := _NUMBERED.search(name):
                self._numbered.setdefault(name[: match.start()], {})[int(match[1])] = path
            for channel in channels:
                before = name.lower().removesuffix(channel.lower())
                if before != name.lower() and before.endswith(_BEFORE_CHANNEL):
                    self._named.setdefault((before[:-1], channel), []).append(path)
            for place, letter in enumerate(name):
                if letter == "/":
                    self._inside.setdefault(name[:place], []).append(path)

    def of_case(self, name: str) -> tuple[Path, ...]:
        """Return one file, or one for each channel; none, if some are missing or there are more."""
        if whole := self._whole.get(name):
            return tuple(whole) if len(whole) == 1 else ()
        numbered = self._numbered.get(name, {})
        if numbered and sorted(numbered) == list(range(len(numbered))):
            return tuple(numbered[k] for k in range(len(numbered)))
        named = [self._named.get((name.lower(), channel), []) for channel in self._channels]
        if named and all(len(each) == 1 for each in named):
            return tuple(each[0] for each in named)
        inside = self._inside.get(name, [])
        return tuple(inside) if len(inside) == 1 else ()
