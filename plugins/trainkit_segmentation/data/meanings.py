"""Proposes names of channels and classes, where neither a list nor the recipe gives any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainkit import DataError
from trainkit_segmentation.files.images import read_header, read_integers
from trainkit_segmentation.files.label_values import value_counts
from trainkit_segmentation.spelling import IGNORE

_MOST_READ = 5  # labels whose values are looked at
_MOST_SHOWN = 10
_OFTEN_IGNORED = 255  # beside other classes, as in PASCAL VOC and Cityscapes; alone, it is the only class


def number_of_channels(images: Sequence[Sequence[Path]]) -> int:
    """Return how many channels the first image has that can be read; 1, if none can.

    Args:
        images: The files of the image of each case.
    """
    for files in images[:_MOST_READ]:
        try:
            return sum(read_header(file).channels for file in files)
        except DataError:  # reported when the case is read
            continue
    return 1


def numbered_channels(number: int) -> tuple[str, ...]:
    """Return names for channels of which nothing but their number is known."""
    return ("image",) if number == 1 else tuple(f"channel_{k}" for k in range(number))


def proposed_channels(images: Sequence[Sequence[Path]]) -> str:
    """Return a line for the recipe that names the channels.

    Args:
        images: The files of the image of each case.
    """
    names = ", ".join(f'"{name}"' for name in numbered_channels(number_of_channels(images)))
    return f"data.channels = [{names}]"


def proposed_labels(labels: Sequence[Path]) -> str:
    """Return a line for the recipe that names the label values that some labels have."""
    values, read = _values_of(labels)
    shown = sorted(values - {0})[:_MOST_SHOWN] or [1]
    classes = ", ".join(f"class_{value} = {value}" for value in shown)
    there = ", ".join(map(str, sorted(values)[:_MOST_SHOWN]))
    seen = f"; the first {read} labels have the values {there}" if read else ""
    void = f"; if {_OFTEN_IGNORED} marks voxels that nobody annotated, write {IGNORE} = {_OFTEN_IGNORED}"
    return f"data.labels = {{ {classes} }}{seen}{void * (len(shown) > 1 and _OFTEN_IGNORED in values)}"


def proposed_classes(labels: Sequence[Path]) -> dict[str, int]:
    """Return names for the label values that some labels have, with the values; 255 beside others is ignored."""
    values, _ = _values_of(labels)
    found = sorted(values - {0}) or [1]
    return {IGNORE if value == _OFTEN_IGNORED and len(found) > 1 else f"class_{value}": value for value in found}


def _values_of(labels: Sequence[Path]) -> tuple[set[int], int]:
    """Return the values that a few labels have, and how many were read."""
    values: set[int] = set()
    read = 0
    for path in labels:
        try:
            found = read_integers(path)
        except DataError:  # reported when the case is read
            continue
        channels = found.header.channels
        values |= set(range(1, channels + 1)) if channels > 1 else set(value_counts(found.values_CXYZ))
        read += 1
        if read == _MOST_READ:
            break
    return values, read
