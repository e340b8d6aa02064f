"""What the intensities of the classes are like: of one case, and of all training cases together.

Shapes: C = channels, M = quantiles, X, Y, Z = voxels.

A case is described by the quantiles of its foreground, so that each case counts alike, whatever its number of voxels,
as in nnU-Net, which draws as many voxels of each. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainkit import DataError
from trainkit_segmentation.cases.case import Volume
from trainkit_segmentation.files.header import Array

_QUANTILES = 10_000  # of a case
_LOWER, _UPPER = 0.5, 99.5  # percentiles, as in nnU-Net

Intensities = tuple[float, float, float, float]
"""Lower and upper percentile, mean, and standard deviation."""


def quantiles_of_foreground(volume: Volume, num_classes: int) -> Array:
    """Return quantiles of the voxels that belong to a class, (C, M) float32; (C, 0) if there are none."""
    codes_XYZ, table = volume.label_codes_XYZ, volume.class_table
    if table is None:
        is_class = (codes_XYZ > 0) & (codes_XYZ <= num_classes)
    else:
        is_class = np.asarray(table[:, :num_classes].any(axis=1))[codes_XYZ]
    inside = volume.image_CXYZ[:, is_class]
    if not inside.size:
        return np.zeros((len(inside), 0), np.float32)
    shares = (np.arange(min(_QUANTILES, inside.shape[1])) + 0.5) / min(_QUANTILES, inside.shape[1])
    found: Array = np.quantile(inside, shares, axis=1, method="hazen").T.astype(np.float32)
    return found


def pooled(quantiles: Sequence[Array]) -> tuple[Intensities, ...]:
    """Return what the foreground of several cases is like, for each channel.

    Args:
        quantiles: What `quantiles_of_foreground` returned for each case.

    Raises:
        DataError: No case has a voxel of a class.
    """
    some = [each for each in quantiles if each.shape[1]]
    if not some:
        raise DataError(
            'no training case has a voxel of a class, so data.preprocessing.normalization = "foreground" fails'
        )
    whole = [each if each.shape[1] == _QUANTILES else _repeated(each) for each in some]
    found = []
    for values in np.concatenate(whole, axis=1).astype(np.float64):
        lower, upper = np.percentile(values, (_LOWER, _UPPER))
        found.append((float(lower), float(upper), float(values.mean()), float(values.std())))
    return tuple(found)


def normalise_by_foreground(image_CXYZ: Array, intensities: Sequence[Intensities]) -> None:
    """Clip each channel to the percentiles, and give its foreground mean 0 and standard deviation 1, in place.

    Raises:
        DataError: The image has another number of channels.
    """
    if len(intensities) != len(image_CXYZ):
        raise DataError(
            f"the image has {len(image_CXYZ)} channels, but data.preprocessing.intensities has {len(intensities)}"
        )
    for channel, (lower, upper, mean, deviation) in zip(image_CXYZ, intensities, strict=True):
        np.clip(channel, lower, upper, out=channel)
        channel -= np.float32(mean)
        channel /= np.float32(max(deviation, 1e-8))


def _repeated(quantiles_CM: Array) -> Array:
    """Return as many quantiles as a large case has."""
    place: Any = np.arange(_QUANTILES) * quantiles_CM.shape[1] // _QUANTILES
    return np.asarray(quantiles_CM[:, place])
