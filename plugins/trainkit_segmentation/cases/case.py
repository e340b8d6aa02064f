"""A case and its files.

Shapes: C = channels, K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs
import numpy as np

from trainkit import DataError
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.cases.labels import Labels, encode_masks, encode_values
from trainkit_segmentation.cases.missing_masks import MissingMasks
from trainkit_segmentation.cases.segments import declared_values
from trainkit_segmentation.files.header import Array, Header, grid_difference, with_spacing
from trainkit_segmentation.files.images import (
    files_of,
    read_header,
    read_integers,
    read_voxels,
    readers_of_others,
)
from trainkit_segmentation.files.placing import placement

_Read = TypeVar("_Read")
_HOW_TO_TAKE_THE_IMAGES = (
    "; its header has no geometry: if its voxels are those of the image in the same order, set "
    "data.labels_on_image_grid = true"
)

_NO_SPACING = (
    "the file does not say how large a voxel is, and 1 mm is taken; give it, or confirm it, with "
    "data.file_spacing_mm = [1.0, 1.0, 1.0]"
)


@attrs.frozen
class Volume:
    """A case as read from its files.

    Attributes:
        image_CXYZ: Intensities, float32.
        label_codes_XYZ: Label codes, uint8, or int32 where there are more than 256.
        class_table: (codes, K) uint8, 1 where a code belongs to a class; None where classes exclude each other. With a
            column more, that of ignored voxels, if there may be any.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        label_off: How far a label value was off a whole number at most, before it was rounded.
        has_form: Whether the image's header says how its axes lie in space.
        has_spacing: Whether the image's header, or the recipe, says how large a voxel is.
    """

    image_CXYZ: Array
    label_codes_XYZ: Array
    class_table: Array | None
    affine: Array
    label_off: float = 0.0
    has_form: bool = True
    has_spacing: bool = True


@attrs.frozen
class CaseReport:
    """What the headers of a case say.

    Attributes:
        shape: Voxels of its grid; None if no header could be read.
        affine: (4, 4), from voxels to mm.
        problems: What is wrong with the case. The messages do not repeat its name.
        doubts: What may be wrong with it, in the same form.
        notes: What a person should know, in the same form.
    """

    shape: tuple[int, int, int] | None
    affine: Array | None = attrs.field(eq=False)
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Case(Protocol):
    """Something with an image and a label."""

    @property
    def name(self) -> str:
        """Name of the case in messages, splits and results."""
        ...

    @property
    def subject(self) -> str:
        """Person that the case is of. Cases of one person are never on both sides of a split."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the case is read from, in a fixed order."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return everything else that the content depends on, as JSON values."""
        ...

    def inspect(self) -> CaseReport:
        """Read all headers, for ``check --data``; no voxels."""
        ...

    def read(self, labels: Labels, *, nan_as_zero: bool = False) -> Volume:
        """Read the case.

        Args:
            labels: What the values of its label mean.
            nan_as_zero: Whether voxels of the image that are NaN are taken as 0, instead of refusing the case.

        Raises:
            DataError: A file cannot be read, or the files do not fit each other. The message does not name the case.
        """
        ...


@attrs.frozen
class CaseList:
    """The cases of a data set.

    Attributes:
        source: Where the cases are, for messages.
        cases: The cases whose files exist, in alphabetical order.
        channels: Names of the channels of an image.
        labels: What label values mean.
        notes: What a person should know, for example which edition of a challenge was recognised.
        problems: What is wrong with single cases, each with the name of its case.
        doubts: What is probably not meant, for example images that are left out because they have no label.
        folds: Name of a case -> the fold that a list gives to it, or "train" or "val", where it gives any.
        missing: Name of a case -> number of a mask that has no file -> a sentence that says so.
        missing_masks: What such masks mean, see `MissingMasks`.
        unannotated: Name of a case -> the classes that are not known there, since masks have no file.
        image_names: How the files of an image are named.
    """

    source: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: Labels
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    folds: Mapping[str, int | str] = attrs.field(factory=dict)
    missing: Mapping[str, Mapping[int, str]] = attrs.field(factory=dict)
    missing_masks: MissingMasks = "error"
    unannotated: Mapping[str, frozenset[str]] = attrs.field(factory=dict)
    image_names: ImageNames = attrs.Factory(ImageNames)


@attrs.frozen
class FileCase:
    """A case that is read from files.

    Attributes:
        name: Name of the case.
        subject: Person that the case is of.
        images: One file with all channels, or one file for each channel.
        label: The file of label values; None if there are masks instead.
        masks: Files of masks, if there is no label file.
        channels: Number of channels that the image must have.
        label_channels: Number of channels that the label must have.
        mask_values: The number of each mask in ``masks``, or of each channel of a label whose channels are masks; 0:
            that of what is in no other.
        unknown_masks: Numbers of masks that nobody made for this case.
        label_on_image_grid: Whether the label is on the image's voxels, whatever its header says.
        spacing_mm: Size of a voxel of files that do not say it.
    """

    name: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None
    masks: tuple[Path, ...] = ()
    channels: int = 1
    label_channels: int = 1
    mask_values: tuple[int, ...] = ()
    unknown_masks: tuple[int, ...] = ()
    label_on_image_grid: bool = False
    spacing_mm: tuple[float, float, float] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The images, then the label or the masks. A path may be a folder, or the header of several files."""
        return (*self.images, *([self.label] if self.label else []), *self.masks)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the images and labels are read from."""
        return tuple(file for path in self.paths for file in files_of(path))

    def describe(self) -> Mapping[str, Any]:
        """Return how the files are put together."""
        grid = {"label_on_image_grid": True} if self.label_on_image_grid else {}
        others: dict[str, Any] = {"readers": names} if (names := readers_of_others(self.paths)) else {}
        if self.mask_values != tuple(range(1, len(self.masks) + 1)):
            others |= {"mask_values": list(self.mask_values)}
        if self.unknown_masks:
            others |= {"unknown_masks": list(self.unknown_masks)}
        if self.spacing_mm is not None:
            others["spacing_mm"] = list(self.spacing_mm)
        return {"images": len(self.images), "masks": len(self.masks), "channels": self.channels} | grid | others

    def inspect(self) -> CaseReport:
        """Read the headers of all files, and report everything that is wrong at once."""
        headers, problems = [], []
        for path in self.paths:
            try:
                headers.append(with_spacing(read_header(path), self.spacing_mm))
            except DataError as error:
                problems.append(str(error))
        if len(headers) == len(self.paths):
            problems += self._mismatches(headers)
        doubts = [
            f"the header of {each.path.name} is wrong, and read as if corrected: {correction}"
            for each in headers
            for correction in each.corrections
        ]
        questions: dict[str, list[str]] = {}
        for number, each in enumerate(headers if len(headers) == len(self.paths) else ()):
            is_image = number < len(self.images)
            if each.open_question and (is_image or not self.label_on_image_grid):
                questions.setdefault(each.open_question, []).append("image" if is_image else "label")
        doubts += [f"{' and '.join(dict.fromkeys(of))}: {question}" for question, of in questions.items()]
        if headers and headers[0].has_no_spacing:
            doubts.append(_NO_SPACING)
        first = headers[0] if headers else None
        return CaseReport(
            first.shape if first else None,
            first.affine if first else None,
            tuple(dict.fromkeys(problems)),
            tuple(dict.fromkeys(doubts)),
            tuple(dict.fromkeys(each.conversion for each in headers if each.conversion)),
        )

    def read(self, labels: Labels, *, nan_as_zero: bool = False) -> Volume:
        """Read all files and put their arrays together; what is wrong with any of them is said at once."""
        problems: list[str] = []
        images = read_channels(self.images, problems, nan_as_zero=nan_as_zero)
        targets = _each([self.label] if self.label else self.masks, read_integers, problems)
        if problems:
            raise DataError("; ".join(problems))
        headers = [
            with_spacing(each, self.spacing_mm) for each in (*(h for h, _ in images), *(t.header for t in targets))
        ]
        if problems := self._mismatches(headers):
            raise DataError("; ".join(problems))
        image_CXYZ = _together(headers[: len(images)], [voxels_CXYZ for _, voxels_CXYZ in images])
        values = [
            each.values_CXYZ if self.label_on_image_grid else _onto(headers[0], header, each.values_CXYZ)
            for header, each in zip(headers[len(images) :], targets, strict=True)
        ]
        if self.mask_values or self.label is None:
            if self.label:
                _check_masks(targets[0].header.path, values[0])
            masks_XYZ = [mask_XYZ != 0 for each_CXYZ in values for mask_XYZ in each_CXYZ]
            if 0 in self.mask_values:
                _check_background(targets[0].header.path, np.stack(masks_XYZ))
            masks = dict(zip(self.mask_values, masks_XYZ, strict=True))
            shape, known = image_CXYZ.shape[1:], labels.without_unknown(self.unknown_masks)
            label_codes_XYZ, class_table = encode_masks(masks, shape, known)
        else:
            values_XYZ = declared_values(self.label, values[0][0], targets[0].header.names, labels)
            label_codes_XYZ, class_table = encode_values(values_XYZ, labels)
        return Volume(
            image_CXYZ,
            label_codes_XYZ,
            class_table,
            headers[0].affine,
            label_off=max((each.off for each in targets), default=0.0),
            has_form=not headers[0].has_no_form,
            has_spacing=not headers[0].has_no_spacing,
        )

    def read_image(self, *, nan_as_zero: bool = False) -> tuple[Array, Header]:
        """Read the image alone, for a prediction.

        Returns:
            The intensities (C, X, Y, Z), and the header of the first file, whose grid it is on.

        Raises:
            DataError: A file cannot be read, or the files do not fit each other.
        """
        problems: list[str] = []
        images = read_channels(self.images, problems, nan_as_zero=nan_as_zero)
        headers = [with_spacing(header, self.spacing_mm) for header, _ in images]
        problems += self._mismatches(headers) if not problems else []
        if problems:
            raise DataError("; ".join(problems))
        return _together(headers, [voxels_CXYZ for _, voxels_CXYZ in images]), headers[0]

    def _mismatches(self, headers: Sequence[Header]) -> list[str]:
        found = []
        images = headers[: len(self.images)]
        if (given := sum(header.channels for header in images)) != self.channels:
            found.append(f"{self.images[0]}: the data set has {self.channels} channels, but this image has {given}")
        for header in headers[len(self.images) :]:
            if header.channels != self.label_channels:
                wanted = "one" if self.label_channels == 1 else f"{self.label_channels}, one for each class"
                found.append(f"{header.path}: the label has {_channels(header.channels)} instead of {wanted}")
        for number, header in enumerate(headers[1:], start=1):
            what = "the channel" if number < len(images) else "the label"
            is_free = number >= len(images) and self.label_on_image_grid
            if is_free and header.shape == headers[0].shape:
                continue
            place = placement(headers[0], header)
            if place and (place.is_whole or (place.is_inside and header.names)):
                continue
            if difference := grid_difference(headers[0], header):
                told = f"{header.path}: {what} is on another grid than {headers[0].path.name}: {difference}"
                lost = number >= len(images) and header.lacks_geometry and header.shape == headers[0].shape
                found.append(told + _HOW_TO_TAKE_THE_IMAGES * lost)
        return found


def read_as(listing: CaseList, **how: Any) -> CaseList:
    """Return the same cases, with other settings of how their files are read."""
    cases = tuple(attrs.evolve(case, **how) if isinstance(case, FileCase) else case for case in listing.cases)
    return attrs.evolve(listing, cases=cases)


def _onto(first: Header, header: Header, voxels_CXYZ: Array) -> Array:
    """Return voxels with the axes of the first file, and on its whole grid where a file of segments holds a part."""
    place = None if header is first else placement(first, header)
    return voxels_CXYZ if place is None else place.apply(voxels_CXYZ)


def _channels(number: int) -> str:
    return f"{number} channel{'s' * (number != 1)}"


def _check_masks(path: Path, values_CXYZ: Array) -> None:
    """Check that each channel of a label has one value beside 0."""
    for channel, values_XYZ in enumerate(values_CXYZ):
        inside = values_XYZ[values_XYZ != 0]
        if inside.size and inside.min() != inside.max():
            raise DataError(
                f"{path}: channel {channel} should be the mask of a class, but has several values, {inside.min()} to "
                f"{inside.max()}: if the channels are alike, as in a grey picture that was saved in colour, save one "
                "of them as the label"
            )


def _check_background(path: Path, masks_CXYZ: Array) -> None:
    """Check that each voxel is in exactly one mask, the first of which is that of the background."""
    if wrong := int((masks_CXYZ.sum(axis=0) != 1).sum()):
        raise DataError(
            f"{path}: channel 0 should be the background and each other one a class, but {wrong} voxels are in no "
            "channel, or in several: if classes overlap, leave out the background's channel; if channel 0 is a class, "
            "name it"
        )


def _together(headers: Sequence[Header], voxels: Sequence[Array]) -> Array:
    """Return the channels of several files as one float32 array, on the grid of the first file."""
    turned = [_onto(headers[0], header, each_CXYZ) for header, each_CXYZ in zip(headers, voxels, strict=True)]
    if len(turned) == 1:
        return turned[0].astype(np.float32, copy=False)
    joined_CXYZ: Array = np.concatenate(turned, dtype=np.float32, casting="unsafe")
    return joined_CXYZ


def read_channels(
    paths: Sequence[Path], problems: list[str], *, nan_as_zero: bool = False
) -> list[tuple[Header, Array]]:
    """Read the files of an image, one with all channels or one for each.

    Args:
        paths: The files.
        problems: What is wrong with files is added here, a sentence each.
        nan_as_zero: Whether voxels that are NaN are taken as 0.

    Returns:
        For each file that can be read its header and its voxels (C, X, Y, Z).
    """
    return _each(paths, partial(read_voxels, nan_as_zero=nan_as_zero), problems)


def _each(paths: Sequence[Path], read: Callable[[Path], _Read], problems: list[str]) -> list[_Read]:
    """Read several files, and add what is wrong with some to ``problems``."""
    found = []
    for path in paths:
        try:
            found.append(read(path))
        except DataError as error:
            problems.append(str(error))
    return found
