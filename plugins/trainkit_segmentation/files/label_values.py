"""Counts of the values in a label file, cached until the file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainkit import FileFacts
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.files.images import read_integers


def values_in(path: Path, facts: FileFacts) -> dict[int, int]:
    """Return value -> number of voxels.

    Raises:
        DataError: The file cannot be read.
    """
    return {int(value): number for value, number in facts.remember(path, "values", _count).items()}


def value_counts(values: Array) -> dict[int, int]:
    """Return value -> number of voxels."""
    if values.size and int(values.min()) >= 0 and int(values.max()) < 65536:
        counts = np.bincount(values.ravel().astype(np.int64, copy=False))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    different, numbers = np.unique(values, return_counts=True)
    return {int(value): int(number) for value, number in zip(different, numbers, strict=True)}


def _count(path: Path) -> dict[str, int]:
    return {str(value): number for value, number in value_counts(read_integers(path).values_CXYZ).items()}
