"""Cutting patches out of preprocessed volumes.

Shapes: C = channels, X, Y, Z = voxels. The position of a patch is that of its first voxel. Voxels of a patch that are
outside the volume are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def choose_start(
    tensors: Mapping[str, Tensor], size: Sequence[int], foreground_probability: float, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Choose the position of a patch.

    Args:
        tensors: ``label_codes`` (X, Y, Z), ``places`` and ``place_counts`` of a case, and ``counted_places`` if some of
            its voxels are ignored.
        size: Voxels of the patch.
        foreground_probability: Probability that the patch is centred on a voxel of a class. The class is drawn
            uniformly from those that the case has, and the voxel uniformly from the class. Other patches are placed
            uniformly. A patch is shifted to stay inside the volume if the volume is large enough. If some voxels are
            ignored, every patch has a voxel that is not: its voxel, then drawn from all that count for other patches,
            is anywhere in the central half of the patch. If every fourth slice counts, for example, centred patches
            would have them in the same places every time, and a network with strides would not learn the places
            between.
        rng: The same number of values is drawn for every case.

    Returns:
        The first voxel. It is negative along axes where the volume is smaller than the patch, which is then centred.
    """
    shape = tensors["label_codes"].shape
    foreground, which, voxel, *anywhere = rng.random(6)
    counts = tensors["place_counts"].numpy()
    present = np.flatnonzero(counts)
    counted = tensors.get("counted_places")
    place = None
    if foreground < foreground_probability and len(present):
        k = present[int(which * len(present))]
        place = int(tensors["places"][int(counts[:k].sum()) + int(voxel * counts[k])])
    elif counted is not None and len(counted):
        place = int(counted[int(voxel * len(counted))])
    if place is not None:
        offsets = [n // 2 for n in size]
        if counted is not None:
            offsets = [n // 4 + int(u * (n - 2 * (n // 4))) for u, n in zip(anywhere, size, strict=True)]
        wanted = [int(at) - offset for at, offset in zip(np.unravel_index(place, shape), offsets, strict=True)]
    else:
        wanted = [int(u * (full - n + 1)) for u, full, n in zip(anywhere, shape, size, strict=True)]
    x, y, z = (
        min(max(first, 0), full - n) if full >= n else -((n - full) // 2)
        for first, full, n in zip(wanted, shape, size, strict=True)
    )
    return x, y, z


def cut(volume_CXYZ: Tensor, start: Sequence[int], out_CXYZ: Tensor) -> None:
    """Copy a patch into ``out_CXYZ`` and convert it to its dtype, in one pass.

    Args:
        volume_CXYZ: A whole volume.
        start: The patch's first voxel; may be negative.
        out_CXYZ: The patch.
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
