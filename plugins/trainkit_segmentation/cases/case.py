"""A case and its files, and what the values of its label mean.

Shapes: C = channels, K = classes, X, Y, Z = voxels.

A label is kept as one small number a voxel, its *code*. Where classes exclude each other, codes are 0 for the
background and i + 1 for class i. Where they overlap, a code stands for a set of classes, and a *table* (codes, K) tells
which: so one array is stored, cropped and resampled whatever the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from trainkit import DataError, FileFacts
from trainkit_segmentation.files.label_values import value_counts, values_in
from trainkit_segmentation.files.nifti import Array, Header, read_header, read_integers, read_voxels, same_grid

_SMALL = 4_000_000  # bytes: images up to this are read whole when a case is examined, larger ones only their header


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


@attrs.frozen
class Examination:
    """What can be told of a case without reading all of it.

    Attributes:
        shape: Voxels of its grid; None where no header could be read.
        affine: (4, 4), from voxels to mm.
        voxels: Class -> number of voxels.
        problems: What is wrong with it, without its name.
    """

    shape: tuple[int, int, int] | None
    affine: Array | None = attrs.field(eq=False)
    voxels: Mapping[str, int]
    problems: tuple[str, ...]


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

    def examine(self, labels: Labels, facts: FileFacts) -> Examination:
        """Look at it for `check --data`: all headers, the label, and the image where it is small."""
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

    def examine(self, labels: Labels, facts: FileFacts) -> Examination:
        """Read headers and label; say all that is wrong at once."""
        headers, problems = [], []
        for path in self.files:
            try:
                headers.append(read_header(path))
                if path in self.images and headers[-1].num_bytes <= _SMALL:
                    read_voxels(path)
            except DataError as error:
                problems.append(str(error))
        if len(headers) == len(self.files):
            problems += self._mismatches(headers)
        voxels: dict[str, int] = dict.fromkeys(labels.classes, 0)
        for number, path in enumerate([self.label] if self.label else self.masks):
            try:
                values = values_in(path, facts)
                if self.label:
                    check_values(values, labels)
                else:
                    voxels[labels.classes[number]] = sum(values.values()) - values.get(0, 0)
            except DataError as error:
                problems.append(str(error))
                continue
            if self.label:
                for value, count in values.items():
                    for k in labels.members[value]:
                        voxels[labels.classes[k]] += count
        first = headers[0] if headers else None
        return Examination(
            first.shape if first else None, first.affine if first else None, voxels, tuple(dict.fromkeys(problems))
        )

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
    # Compared as 64-bit integers: in the file's own type, small ones overflow.
    place_XYZ = np.searchsorted(np.array(values, dtype=np.int64), values_XYZ.astype(np.int64))
    dtype = np.uint8 if len(values) < 256 else np.int32
    if labels.exclusive:
        class_of = [labels.members[value][0] + 1 if labels.members[value] else 0 for value in values]
        return np.array(class_of, dtype=dtype)[place_XYZ], None
    table = np.zeros((len(values), len(labels.classes)), dtype=np.uint8)
    for code, value in enumerate(values):
        table[code, list(labels.members[value])] = 1
    return place_XYZ.astype(dtype), table


def codes_of_masks(masks: Sequence[Array], labels: Labels) -> tuple[Array, Array | None]:
    """Return the codes of one mask (X, Y, Z) a class, and the table of classes that overlap.

    Raises:
        DataError: Masks overlap that must not.
    """
    dtype = np.uint8 if len(masks) < 256 else np.int32
    if labels.exclusive:
        codes_XYZ = np.zeros(masks[0].shape, dtype=dtype)
        for k, mask in enumerate(masks):
            before: Array = codes_XYZ[mask]
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


def check_values(present: Mapping[int, int], labels: Labels) -> None:
    """Make sure that every label value means something.

    Raises:
        DataError: One does not.
    """
    if unknown := sorted(set(present) - set(labels.members)):
        known = ", ".join(map(str, sorted(labels.members)))
        told = ", ".join(f"{value} ({present[value]} voxels)" for value in unknown[:5])
        raise DataError(f"the label has values that are not declared: {told}; declared are {known}")
