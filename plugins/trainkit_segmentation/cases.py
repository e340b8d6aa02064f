"""A case and its files, and what the values of its label mean.

Shapes: C = channels, K = classes, X, Y, Z = voxels.

A label is kept as one small number a voxel, its *code*. Where classes exclude each other, codes are 0 for the background
and i + 1 for class i. Where they overlap, a code stands for a set of classes, and a *table* (codes, K) tells which: so
one array is stored, cropped and resampled whatever the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from trainkit import DataError
from trainkit_segmentation.nifti import Array, Header, read_header, read_integers, read_voxels, same_grid


@attrs.frozen
class Labels:
    """What the values of a data set's labels mean.

    Attributes:
        classes: The foreground classes.
        exclusive: Whether a voxel has one class at most.
        members: Value of a label file -> the classes that it belongs to, by their place in ``classes``. Empty where
            each class has a mask file of its own.
    """

    classes: tuple[str, ...]
    exclusive: bool
    members: Mapping[int, tuple[int, ...]]


@attrs.frozen
class Volume:
    """A case as its files have it.

    Attributes:
        image_CXYZ: Intensities, float32.
        codes_XYZ: Label codes, uint8, or int32 where there are more than 256.
        table: (codes, K) uint8, 1 where a code belongs to a class; None where classes exclude each other.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
    """

    image_CXYZ: Array
    codes_XYZ: Array
    table: Array | None
    affine: Array


class Case(Protocol):
    """Something with an image and a label."""

    @property
    def name(self) -> str:
        """What it is called in messages, splits and results."""
        ...

    @property
    def subject(self) -> str:
        """Whom it is of: cases of one subject are never on both sides of a split."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file it is read from, in a fixed order."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what else its content depends on, as JSON values."""
        ...

    def read(self, labels: Labels) -> Volume:
        """Read it.

        Raises:
            DataError: It cannot be read, or its parts do not fit each other; without its name.
        """
        ...


@attrs.frozen
class CaseList:
    """The cases of a data set.

    Attributes:
        source: Where they are, for messages.
        cases: Those that can be looked for; in alphabetical order.
        channels: What the channels of an image are called.
        labels: What labels mean.
        notes: What a person should know, as an edition that was found out.
        problems: What is wrong with single cases, with their names.
    """

    source: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: Labels
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@attrs.frozen
class FileCase:
    """A case of files.

    Attributes:
        name: What it is called.
        subject: Whom it is of.
        images: One file with all channels, or one a channel.
        label: The file of label values; None where there are masks.
        masks: A file for each class, where labels come so.
        channels: How many channels the image must have.
    """

    name: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None
    masks: tuple[Path, ...] = ()
    channels: int = 1

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, then label or masks."""
        return (*self.images, *([self.label] if self.label else []), *self.masks)

    def describe(self) -> Mapping[str, Any]:
        """Return how its files are to be taken."""
        return {"images": len(self.images), "masks": len(self.masks), "channels": self.channels}

    def headers(self) -> tuple[list[Header], list[str]]:
        """Read the headers of all files that have a sound one, and say what is wrong with the others."""
        headers, problems = [], []
        for path in self.files:
            try:
                headers.append(read_header(path))
            except DataError as error:
                problems.append(str(error))
        if not problems:
            problems = self._mismatches(headers)
        return headers, problems

    def read(self, labels: Labels) -> Volume:
        """Read all files and put them together."""
        images = [read_voxels(path) for path in self.images]
        targets = [read_integers(path) for path in ([self.label] if self.label else self.masks)]
        if problems := self._mismatches([header for header, _ in (*images, *targets)]):
            raise DataError("; ".join(problems))
        if self.label:
            codes_XYZ, table = codes_of_values(targets[0][1], labels)
        else:
            codes_XYZ, table = codes_of_masks([values_XYZ != 0 for _, values_XYZ in targets], labels)
        image_CXYZ = np.concatenate([voxels_CXYZ for _, voxels_CXYZ in images]).astype(np.float32, copy=False)
        return Volume(image_CXYZ, codes_XYZ, table, images[0][0].affine)

    def _mismatches(self, headers: Sequence[Header]) -> list[str]:
        found = []
        images = headers[: len(self.images)]
        if (given := sum(header.channels for header in images)) != self.channels:
            found.append(f"{self.images[0]}: the data set has {self.channels} channels, this image {given}")
        for number, header in enumerate(headers[1:], start=1):
            what = "the channel" if number < len(images) else "the label"
            if difference := same_grid(headers[0], header):
                found.append(f"{header.path}: {what} lies on another grid than {headers[0].path.name}: {difference}")
        return found


def codes_of_values(values_XYZ: Array, labels: Labels) -> tuple[Array, Array | None]:
    """Return the codes of a map of label values, and the table of classes that overlap.

    Raises:
        DataError: There is a value that means nothing.
    """
    present = value_counts(values_XYZ)
    check_values(present, labels)
    values = sorted(labels.members)
    low = min(values[0], 0)
    code_of = np.zeros(values[-1] - low + 1, dtype=np.uint8 if len(values) < 256 else np.int32)
    if labels.exclusive:
        for value, classes in labels.members.items():
            code_of[value - low] = classes[0] + 1 if classes else 0
        return code_of[values_XYZ - low], None
    table = np.zeros((len(values), len(labels.classes)), dtype=np.uint8)
    for code, value in enumerate(values):
        code_of[value - low] = code
        table[code, list(labels.members[value])] = 1
    return code_of[values_XYZ - low], table


def codes_of_masks(masks: Sequence[Array], labels: Labels) -> tuple[Array, Array | None]:
    """Return the codes of one mask (X, Y, Z) a class, and the table of classes that overlap.

    Raises:
        DataError: Masks overlap that must not.
    """
    dtype = np.uint8 if len(masks) < 256 else np.int32
    if labels.exclusive:
        codes_XYZ = np.zeros(masks[0].shape, dtype=dtype)
        for k, mask in enumerate(masks):
            before = codes_XYZ[mask]
            if before.any():
                other = labels.classes[int(before[before > 0][0]) - 1]
                raise DataError(
                    f"the masks {other} and {labels.classes[k]} overlap in {int((before > 0).sum())} voxels: leave one "
                    'out, or let a voxel be of several classes with data.overlap = "multi_label"'
                )
            codes_XYZ[mask] = k + 1
        return codes_XYZ, None
    # Class by class, each set of classes that there is gets the next free number.
    codes_XYZ = np.zeros(masks[0].shape, dtype=np.int32)
    rows = [[0] * len(masks)]
    for k, mask in enumerate(masks):
        for code in np.unique(codes_XYZ[mask]).tolist():
            codes_XYZ[mask & (codes_XYZ == code)] = len(rows)
            rows.append([*rows[code][:k], 1, *rows[code][k + 1 :]])
    return codes_XYZ.astype(np.uint8 if len(rows) <= 256 else np.int32), np.array(rows, dtype=np.uint8)


def value_counts(values_XYZ: Array) -> dict[int, int]:
    """Return value -> number of voxels."""
    if values_XYZ.size and 0 <= int(values_XYZ.min()) and int(values_XYZ.max()) < 65536:
        counts = np.bincount(values_XYZ.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(values_XYZ, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, numbers, strict=True)}


def check_values(present: Mapping[int, int], labels: Labels) -> None:
    """Make sure that every label value means something.

    Raises:
        DataError: One does not.
    """
    if unknown := sorted(set(present) - set(labels.members)):
        known = ", ".join(map(str, sorted(labels.members)))
        told = ", ".join(f"{value} ({present[value]} voxels)" for value in unknown[:5])
        raise DataError(f"the label has values that are not declared: {told}; declared are {known}")


def class_counts(codes: Mapping[int, int], labels: Labels) -> dict[str, int]:
    """Return class -> number of voxels, from value -> number of voxels."""
    counts = dict.fromkeys(labels.classes, 0)
    for value, number in codes.items():
        for k in labels.members.get(value, ()):
            counts[labels.classes[k]] += number
    return counts
