"""Resampling images by cubic splines, as nnU-Net does.

Shapes: C = channels, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainkit_segmentation.files.header import Array

_THICK = 3.0  # slices that are thicker than so many pixels are interpolated apart


def stretch_cubic(
    image_CXYZ: Array, shape: Sequence[int], before_mm: Sequence[float], after_mm: Sequence[float]
) -> Array:
    """Resample to another number of voxels over the same extent, by splines of order 3.

    Splines overshoot at edges, so values are clipped to the range of each channel. Where slices are thick, splines
    would ring across them: the pixels of each slice are resampled by splines, and slices linearly. (There nnU-Net takes
    the nearest slice. That moves the image by half a slice where the ratio of the grids is even; the label stays.)

    Args:
        image_CXYZ: The image, float32.
        shape: The new number of voxels.
        before_mm: Size of a voxel before.
        after_mm: Size of a voxel afterwards.
    """
    from scipy.ndimage import zoom

    shape = tuple(shape)
    if image_CXYZ.shape[1:] == shape:
        return image_CXYZ
    axis = thick_axis(before_mm, after_mm)
    found = np.empty((len(image_CXYZ), *shape), np.float32)
    for channel, out in zip(image_CXYZ, found, strict=True):
        if axis is None:
            factors = [new / old for new, old in zip(shape, channel.shape, strict=True)]
            zoom(channel, factors, output=out, order=3, mode="nearest", grid_mode=True)
            np.clip(out, channel.min(), channel.max(), out=out)
            continue
        slices = np.moveaxis(channel, axis, 0)
        in_plane = shape[:axis] + shape[axis + 1 :]
        finer = np.empty((len(slices), *in_plane), np.float32)
        factors = [new / old for new, old in zip(in_plane, slices.shape[1:], strict=True)]
        for one, made in zip(slices, finer, strict=True):
            zoom(one, factors, output=made, order=3, mode="nearest", grid_mode=True)
            np.clip(made, one.min(), one.max(), out=made)
        np.moveaxis(out, axis, 0)[...] = _between_slices(finer, shape[axis])
    return found


def thick_axis(before_mm: Sequence[float], after_mm: Sequence[float]) -> int | None:
    """Return the axis of thick slices, by the size of a voxel before or afterwards; None: there is none.

    Example:
        >>> thick_axis((0.8, 0.8, 5.0), (1.0, 1.0, 1.0))
        2
        >>> thick_axis((0.2, 1.0, 1.0), (0.2, 1.0, 1.0)) is None
        True
    """
    for spacing in (before_mm, after_mm):
        if max(spacing) / min(spacing) > _THICK:
            thickest = [axis for axis, mm in enumerate(spacing) if mm == max(spacing)]
            return thickest[0] if len(thickest) == 1 else None
    return None


def _between_slices(slices: Array, number: int) -> Array:
    """Interpolate linearly along the first axis."""
    old = len(slices)
    place = np.clip((np.arange(number) + 0.5) * old / number - 0.5, 0, old - 1)
    below = place.astype(np.intp)
    weight = (place - below).astype(np.float32)[:, None, None]
    above = np.minimum(below + 1, old - 1)
    found: Array = slices[below] + weight * (slices[above] - slices[below])
    return found
