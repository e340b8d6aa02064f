"""Counts of the values in a label file, cached until the file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainkit import FileFacts
from trainkit_segmentation.files.nifti import Array, read_integers


def values_in(path: Path, facts: FileFacts) -> dict[int, int]:
    """Return value -> number of voxels.

    Raises:
        DataError: The file cannot be read.
    """
    return {int(value): number for value, number in facts.remember(path, "values", _count).items()}


def value_counts(values_XYZ: Array) -> dict[int, int]:
    """Return value -> number of voxels."""
    if values_XYZ.size and int(values_XYZ.min()) >= 0 and int(values_XYZ.max()) < 65536:
        counts = np.bincount(values_XYZ.ravel().astype(np.int64, copy=False))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(values_XYZ, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, numbers, strict=True)}


def _count(path: Path) -> dict[str, int]:
    return {str(value): number for value, number in value_counts(read_integers(path).values_XYZ).items()}
