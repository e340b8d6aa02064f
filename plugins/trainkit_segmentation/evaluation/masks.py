"""Reads the masks of one case, class by class: a hundred masks of a CT do not fit into memory at once.

Shapes: X, Y, Z = voxels.
"""

from __future__ import annotations

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
        values_XYZ: The label values; None: each class has a file of its own.
        files: The files.
        meaning: What label values mean.
        undeclared: Value -> number of its voxels, of values that mean no class and are taken as background.
    """

    header: Header
    values_XYZ: Array | None
    files: MaskFiles
    meaning: Meaning
    undeclared: dict[int, int]

    def mask(self, name: str) -> Mask:
        """Return the mask of a class (X, Y, Z).

        Raises:
            DataError: Its file is missing, cannot be read, is on another grid, or has several values beside 0.
        """
        if self.values_XYZ is not None:
            return is_any_of(self.values_XYZ, self.meaning.values[name])
        path = self.files.masks.get(name)
        if path is None:
            some = next(iter(self.files.masks.values()))
            raise DataError(f"{some.parent}: there is no mask of {name}")
        header, values_XYZ = _read_values(path, self.meaning)
        if difference := grid_difference(self.header, header):
            raise DataError(f"{path} is on another grid than {self.header.path.name}: {difference}")
        if len(values := sorted(value_counts(values_XYZ).keys() - {0})) > 1:
            raise DataError(
                f"{path} has the values {some_of(list(map(str, values)))} beside 0, but a file of one class must "
                "have one"
            )
        inside: Mask = values_XYZ != 0
        return inside

    def ignored(self) -> Mask | None:
        """Return the voxels that do not count; None: all count."""
        if self.values_XYZ is None or not self.meaning.ignored:
            return None
        return is_any_of(self.values_XYZ, self.meaning.ignored)


def open_masks(files: MaskFiles, meaning: Meaning) -> Masks:
    """Read what all classes of a case need.

    Raises:
        DataError: A file cannot be read, or has values that mean nothing.
    """
    if files.label is None:
        header = with_spacing(read_header(next(iter(files.masks.values()))), meaning.file_spacing_mm)
        return Masks(header, None, files, meaning, {})
    header, values_XYZ = _read_values(files.label, meaning)
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
    return Masks(header, values_XYZ, files, meaning, unknown)


def _read_values(path: Path, meaning: Meaning) -> tuple[Header, Array]:
    read = read_integers(path)
    if (channels := len(read.values_CXYZ)) != 1:
        raise DataError(f"{path}: a mask must have three dimensions, but this file has {channels} channels")
    return with_spacing(read.header, meaning.file_spacing_mm), read.values_CXYZ[0]


def is_any_of(values_XYZ: Array, wanted: tuple[int, ...]) -> Mask:
    """Return where values are one of those wanted; these may not fit into the type of the array."""
    limits = np.iinfo(values_XYZ.dtype)
    inside_XYZ: Mask = np.zeros(values_XYZ.shape, dtype=bool)
    for value in wanted:
        if limits.min <= value <= limits.max:
            inside_XYZ |= values_XYZ == value
    return inside_XYZ
