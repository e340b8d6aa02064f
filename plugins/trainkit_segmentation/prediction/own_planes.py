"""From planes of scores on the network's grid to planes on the case's own grid, without the whole volume.

Linear interpolation works axis by axis, so a plane of the new grid needs two planes of the old one. The values are
those of `trainkit_segmentation.preparing.grid.stretch` for the whole volume.

Shapes: P = planes, K = scores, U, V = voxels of a plane.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_MOST_VALUES = 1 << 22  # that are worked on at once


def stretch_planes(
    planes_PKUV: Iterable[Tensor], num_old: int, num_new: int, shape_UV: Sequence[int]
) -> Iterator[Tensor]:
    """Yield planes resampled linearly to another number of voxels over the same extent.

    Args:
        planes_PKUV: The planes in their order, any number at a time, float32.
        num_old: Number of all planes.
        num_new: Number of planes to make.
        shape_UV: Voxels of a new plane.

    Yields:
        (P, K, U, V) of the new grid, a few planes at a time.
    """
    planes_KUV = (plane_KUV for some in planes_PKUV for plane_KUV in some)
    wanted = [min(max((new + 0.5) * (num_old / num_new) - 0.5, 0.0), num_old - 1.0) for new in range(num_new)]
    held: dict[int, Tensor] = {}
    read = 0
    ready: list[Tensor] = []
    for place in wanted:
        below = int(place)
        above = min(below + 1, num_old - 1)
        while read <= above:
            # A copy: the memory of planes is used again. Of planes that are not needed there is none.
            plane_KUV = next(planes_KUV)
            if read >= below:
                held[read] = plane_KUV.clone()
            read += 1
        for old in [old for old in held if old < below]:
            del held[old]
        share = place - below
        mixed_KUV = held[below] if share == 0 else torch.lerp(held[below], held[above], share)
        if tuple(mixed_KUV.shape[1:]) != tuple(shape_UV):
            size = list(shape_UV)
            mixed_KUV = functional.interpolate(mixed_KUV[None], size=size, mode="bilinear", align_corners=False)[0]
        ready.append(mixed_KUV)
        if len(ready) >= max(1, _MOST_VALUES // math.prod(mixed_KUV.shape)):
            yield torch.stack(ready)
            ready = []
    if ready:
        yield torch.stack(ready)
    for _ in planes_KUV:  # so that whoever makes them comes to an end
        pass
