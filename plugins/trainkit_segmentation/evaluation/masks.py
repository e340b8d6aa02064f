"""Reads the masks of one case, class by class: a hundred masks of a CT do not fit into memory at once.

Shapes: X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from trainkit import DataError, some_of
from trainkit_segmentation.evaluation.mask_files import MaskFiles
from trainkit_segmentation.evaluation.meaning import Meaning
from trainkit_segmentation.files.header import Array, Header, grid_difference, with_spacing
from trainkit_segmentation.files.images import read_header, read_integers
from trainkit_segmentation.files.label_values import value_counts
from trainkit_segmentation.metrics.surfaces import Mask


@attrs.frozen
class Masks:
    """The masks of one case.

    Attributes:
        header: The header of its file, or of its first one.
        values_XYZ: The label values; None: classes have masks of their own.
        channels: Value or name -> mask, of a file in which each channel is a mask; None: each mask is a file.
        files: The files.
        meaning: What label values mean.
        undeclared: Value -> number of its voxels, of values that mean no class and are taken as background.
        are_true: Whether these are the truth, whose masks a class may be made of; a prediction has one for each class.
    """

    header: Header
    values_XYZ: Array | None
    channels: Mapping[int | str, Mask] | None
    files: MaskFiles
    meaning: Meaning
    undeclared: dict[int, int]
    are_true: bool

    def is_known(self, name: str) -> bool:
        """Return whether somebody looked for a class in this case."""
        if not self.meaning.was_annotated(self.files.name, name):
            return False
        is_complete = self.files.label is not None or all(mask in self.files.masks for mask in self._masks_of(name))
        return is_complete or self.meaning.missing_masks != "not_annotated"

    def mask(self, name: str) -> Mask:
        """Return the mask of a class (X, Y, Z).

        Raises:
            DataError: Its file is missing, cannot be read, is on another grid, or has several values beside 0.
        """
        if self.values_XYZ is not None:
            return is_any_of(self.values_XYZ, self.meaning.values[name])
        if self.channels is not None:
            return self._any_channel(self.meaning.values[name] or self._masks_of(name))
        found: Mask = np.zeros(self.header.shape, dtype=bool)
        for mask in self._masks_of(name):
            if mask in self.files.masks:
                found |= self._read(self.files.masks[mask])
            elif not self.are_true or self.meaning.missing_masks == "error":
                some = next(iter(self.files.masks.values()))
                raise DataError(f"{some.parent}: there is no mask of {mask}")
        return found

    def ignored(self) -> Mask | None:
        """Return the voxels that do not count; None: all count."""
        if self.values_XYZ is not None:
            return is_any_of(self.values_XYZ, self.meaning.ignored) if self.meaning.ignored else None
        if self.channels is not None:
            of_channels = self.meaning.ignored or self.meaning.ignored_masks
            return self._any_channel(of_channels) if of_channels else None
        paths = [self.files.masks[mask] for mask in self.meaning.ignored_masks if mask in self.files.masks]
        return np.logical_or.reduce([self._read(path) for path in paths]) if paths else None

    def lacking_ignored(self) -> list[str]:
        """Return the masks that say which voxels do not count, and that are not there."""
        if self.files.label is not None:
            return []
        return [mask for mask in self.meaning.ignored_masks if mask not in self.files.masks]

    def _masks_of(self, name: str) -> tuple[str, ...]:
        if not self.are_true and name in self.files.masks:
            return (name,)
        return self.meaning.masks.get(name, (name,))

    def _any_channel(self, wanted: Sequence[int | str]) -> Mask:
        assert self.channels is not None
        return np.asarray(np.logical_or.reduce([self.channels[each] for each in wanted]))

    def _read(self, path: Path) -> Mask:
        header, values_CXYZ = _read_values(path, self.meaning)
        _check_one_channel(path, values_CXYZ)
        if difference := grid_difference(self.header, header):
            raise DataError(f"{path} is on another grid than {self.header.path.name}: {difference}")
        if len(values := sorted(value_counts(values_CXYZ).keys() - {0})) > 1:
            raise DataError(
                f"{path} has the values {some_of(list(map(str, values)))} beside 0, but a file of one class must "
                "have one"
            )
        inside: Mask = values_CXYZ[0] != 0
        return inside


def open_masks(files: MaskFiles, meaning: Meaning, *, are_true: bool) -> Masks:
    """Read what all classes of a case need.

    Args:
        files: The files of the case.
        meaning: What label values mean.
        are_true: Whether these are the truth.

    Raises:
        DataError: A file cannot be read, or has values that mean nothing.
    """
    if files.label is None:
        header = with_spacing(read_header(next(iter(files.masks.values()))), meaning.file_spacing_mm)
        return Masks(header, None, None, files, meaning, {}, are_true)
    header, values_CXYZ = _read_values(files.label, meaning)
    if len(values_CXYZ) > 1:
        channels = _by_channel(files.label, values_CXYZ, meaning)
        if not are_true and _are_regions(list(channels.values()), meaning):
            raise DataError(
                f"{files.label}: its channels lie within each other as {some_of(meaning.classes)} do, but they would "
                f"be read as {some_of(list(map(str, meaning.channels)))}: write a file for each class, named after it"
            )
        return Masks(header, None, channels, files, meaning, {}, are_true)
    values_XYZ = values_CXYZ[0]
    if lacking := [name for name, of in meaning.values.items() if not of]:
        raise DataError(
            f"{files.label}: {meaning.source} does not say which value of this file stands for {some_of(lacking)}; "
            'give it with --classes "liver=1, …"'
        )
    known = {value for of in meaning.values.values() for value in of} | {0, *meaning.ignored}
    present = value_counts(values_XYZ)
    unknown = {value: number for value, number in present.items() if value not in known | (meaning.declared or set())}
    if unknown and meaning.declared is not None:
        shown = ", ".join(f"{value} ({number} voxels)" for value, number in list(unknown.items())[:5])
        raise DataError(
            f"{files.label} has values that {meaning.source} does not declare: {shown}; the declared ones are "
            f"{', '.join(map(str, sorted(meaning.declared)))}"
        )
    return Masks(header, values_XYZ, None, files, meaning, unknown, are_true)


def _by_channel(path: Path, values_CXYZ: Array, meaning: Meaning) -> Mapping[int | str, Mask]:
    """Return value or name -> mask, of a file in which each channel is a mask."""
    masks_CXYZ = values_CXYZ != 0
    if len(masks_CXYZ) == len(meaning.channels) + 1:
        if wrong := int((masks_CXYZ.sum(axis=0) != 1).sum()):
            raise DataError(
                f"{path}: channel 0 should be the background, but {wrong} voxels are in no channel, or in several"
            )
        return dict(zip((0, *meaning.channels), masks_CXYZ, strict=True))
    if len(masks_CXYZ) != len(meaning.channels) or not meaning.overlap:
        known = f" ({some_of([str(each) for each in meaning.channels])})" if meaning.channels else ""
        raise DataError(
            f"{path}: a mask must have three dimensions, or a channel for each mask that {meaning.source} "
            f"names{known}, but this file has {len(masks_CXYZ)} channels"
        )
    return dict(zip(meaning.channels, masks_CXYZ, strict=True))


def _are_regions(masks: Sequence[Mask], meaning: Meaning) -> bool:
    """Return whether channels seem to be the classes, where there are as many classes as values or masks.

    They do if each channel whose class is a part of other classes lies within the channels of these.
    """
    if not len(meaning.classes) == len(meaning.channels) == len(masks):
        return False
    made_of = [set(of or meaning.masks.get(name, (name,))) for name, of in meaning.values.items()]
    parts = [(one, other) for one, a in enumerate(made_of) for other, b in enumerate(made_of) if a < b]
    lie_inside = all(not (masks[one] & ~masks[other]).any() for one, other in parts)
    return lie_inside and any(masks[one].any() for one, _ in parts)


def _read_values(path: Path, meaning: Meaning) -> tuple[Header, Array]:
    read = read_integers(path)
    return with_spacing(read.header, meaning.file_spacing_mm), read.values_CXYZ


def _check_one_channel(path: Path, values_CXYZ: Array) -> None:
    if len(values_CXYZ) != 1:
        raise DataError(f"{path}: a mask must have three dimensions, but this file has {len(values_CXYZ)} channels")


def is_any_of(values_XYZ: Array, wanted: tuple[int, ...]) -> Mask:
    """Return where values are one of those wanted; these may not fit into the type of the array."""
    limits = np.iinfo(values_XYZ.dtype)
    inside_XYZ: Mask = np.zeros(values_XYZ.shape, dtype=bool)
    for value in wanted:
        if limits.min <= value <= limits.max:
            inside_XYZ |= values_XYZ == value
    return inside_XYZ
