"""Cutting patches out of preprocessed volumes.

Shapes: C = channels, X, Y, Z = voxels. A patch is where its first voxel is; what of it lies outside of the volume is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def choose_start(
    tensors: Mapping[str, Tensor], size: Sequence[int], foreground_probability: float, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Choose where a patch begins.

    Args:
        tensors: A case's: ``codes`` (X, Y, Z), ``places`` and ``place_counts``.
        size: Voxels of the patch.
        foreground_probability: How often it is centred on a voxel of a class that the case has; each class is then as
            probable, and so is each of its voxels. A patch never sticks out of a volume that is larger than it.
        rng: Is drawn from alike whatever the case has.

    Returns:
        Its first voxel; negative along axes where the volume is smaller than the patch, which is then centred.
    """
    shape = tensors["codes"].shape
    foreground, which, voxel, *anywhere = rng.random(6)
    counts = tensors["place_counts"].numpy()
    present = np.flatnonzero(counts)
    if foreground < foreground_probability and len(present):
        k = present[int(which * len(present))]
        place = int(tensors["places"][int(counts[:k].sum()) + int(voxel * counts[k])])
        wanted = [int(centre) - n // 2 for centre, n in zip(np.unravel_index(place, shape), size, strict=True)]
    else:
        wanted = [int(u * (full - n + 1)) for u, full, n in zip(anywhere, shape, size, strict=True)]
    x, y, z = (
        min(max(first, 0), full - n) if full >= n else -((n - full) // 2)
        for first, full, n in zip(wanted, shape, size, strict=True)
    )
    return x, y, z


def cut(volume_CXYZ: Tensor, start: Sequence[int], out_CXYZ: Tensor) -> None:
    """Copy a patch into ``out_CXYZ``, converting to its dtype on the way; one pass over what is read.

    Args:
        volume_CXYZ: A whole volume.
        start: The patch's first voxel; may be negative.
        out_CXYZ: Of the patch's size.
    """
    source: list[slice] = [slice(None)]
    target: list[slice] = [slice(None)]
    for first, n, full in zip(start, out_CXYZ.shape[1:], volume_CXYZ.shape[1:], strict=True):
        begin, end = max(first, 0), max(min(first + n, full), max(first, 0))
        source.append(slice(begin, end))
        target.append(slice(begin - first, end - first))
    inside = out_CXYZ[tuple(target)]
    if inside.shape != out_CXYZ.shape:
        out_CXYZ.zero_()
    inside.copy_(volume_CXYZ[tuple(source)])
