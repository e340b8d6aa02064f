"""Scores of a whole volume by overlapping windows, a few planes at a time.

The scores of twenty classes for a large CT do not fit into memory. Windows are therefore placed row by row along one
axis, and the planes that no further window touches are handed on. Only the planes of one row of windows are kept. The
blended scores are those of MONAI's ``SlidingWindowInferer``, with the same windows and weights.

Shapes: B = windows, C = channels, K = scores, P = planes along the chosen axis, X, Y, Z = voxels, U, V = the two other
axes, in their order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import attrs
import torch
from monai.data.utils import compute_importance_map
from torch import Tensor

from trainkit_segmentation.sizes import Size


@attrs.frozen
class Windows:
    """How windows cover a volume.

    Attributes:
        size: Voxels of a window.
        overlap: Share of their size by which neighbouring windows overlap.
        blending: Weight of the voxels of a window.
        at_once: Number of windows that pass through the network together.
    """

    size: Size
    overlap: float
    blending: Literal["gaussian", "constant"]
    at_once: int = 1

    def starts(self, shape: Sequence[int]) -> list[list[int]]:
        """Return the first voxel of the windows along each axis; it is negative where a volume is smaller than one."""
        found = []
        for length, edge in zip(shape, self.size, strict=True):
            before = max(edge - length, 0) // 2
            padded = max(edge, length)
            interval = edge if padded == edge else max(1, int(edge * (1 - self.overlap)))
            number = 1 + math.ceil((padded - edge) / interval)
            found.append([min(k * interval, padded - edge) - before for k in range(number)])
        return found

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of windows of a volume."""
        return math.prod(map(len, self.starts(shape)))


def thinnest_axis(shape: Sequence[int], size: Size) -> int:
    """Return the axis along which a row of windows holds the fewest voxels."""
    padded = [max(edge, length) for edge, length in zip(size, shape, strict=True)]
    voxels = [math.prod(padded) // padded[axis] * size[axis] for axis in range(3)]
    return voxels.index(min(voxels))


def stream_scores(
    image_CXYZ: Tensor,
    score: Callable[[Tensor], Tensor],
    windows: Windows,
    axis: int,
    device: torch.device,
    *,
    keep_on: torch.device,
    tell: Callable[[int], None] = lambda done: None,
) -> Iterator[Tensor]:
    """Yield the scores of a volume, from its first plane along an axis to its last.

    Args:
        image_CXYZ: The volume, in any floating-point type, on the CPU.
        score: The network: float32 (B, C, X, Y, Z) of the windows' size -> scores (B, K, X, Y, Z).
        windows: How windows cover the volume.
        axis: The axis, 0 to 2.
        device: The device of the network.
        keep_on: The device on which scores are added up.
        tell: Called with the number of finished windows.

    Yields:
        (P, K, U, V), float32. It is overwritten when the next one is asked for.
    """
    shape = tuple(image_CXYZ.shape[1:])
    starts = windows.starts(shape)
    edge = windows.size[axis]
    others = [other for other in range(3) if other != axis]
    plane = tuple(shape[other] for other in others)
    weight_PUV = compute_importance_map(windows.size, mode=windows.blending).movedim(axis, 0).to(keep_on)
    sum_PKUV: Tensor | None = None
    weights_PUV = torch.zeros((edge, *plane), device=keep_on)
    done = 0
    for row, first in enumerate(starts[axis]):
        places = [_place(axis, first, pair) for pair in itertools.product(*(starts[other] for other in others))]
        for batch in _batched(places, windows.at_once):
            window_BCXYZ = torch.stack([_cut(image_CXYZ, place, windows.size) for place in batch])
            scores_BKXYZ = score(window_BCXYZ.to(device)).float().to(keep_on)
            if sum_PKUV is None:
                sum_PKUV = torch.zeros((edge, scores_BKXYZ.shape[1], *plane), device=keep_on)
            for place, scores_KXYZ in zip(batch, scores_BKXYZ, strict=True):
                inside, of_window = _overlap(
                    [place[other] for other in others], plane, [windows.size[o] for o in others]
                )
                scores_PKUV = scores_KXYZ.movedim(1 + axis, 0)[:, :, *of_window]
                part_PUV = weight_PUV[:, *of_window]
                sum_PKUV[:, :, *inside].addcmul_(scores_PKUV, part_PUV[:, None])
                weights_PUV[:, *inside] += part_PUV
            done += len(batch)
            tell(done)
        assert sum_PKUV is not None
        last = row + 1 == len(starts[axis])
        finished = edge if last else starts[axis][row + 1] - first
        begin, end = max(0, -first), min(finished, shape[axis] - first)  # without planes outside the volume
        yield sum_PKUV[begin:end].div_(weights_PUV[begin:end, None])
        if not last:
            for kept in (sum_PKUV, weights_PUV):
                for target in range(edge - finished):  # plane by plane, so that no copy of all is made
                    kept[target] = kept[target + finished]
                kept[edge - finished :] = 0


def _place(axis: int, first: int, others: Sequence[int]) -> tuple[int, ...]:
    place = list(others)
    place.insert(axis, first)
    return tuple(place)


def _batched(places: Sequence[tuple[int, ...]], number: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    for begin in range(0, len(places), number):
        yield tuple(places[begin : begin + number])


def _overlap(first: Sequence[int], shape: Sequence[int], size: Sequence[int]) -> tuple[list[slice], list[slice]]:
    """Return the part of a volume that a window covers, and the part of the window that is inside the volume."""
    inside = [slice(max(at, 0), min(at + edge, n)) for at, n, edge in zip(first, shape, size, strict=True)]
    of_window = [slice(each.start - at, each.stop - at) for at, each in zip(first, inside, strict=True)]
    return inside, of_window


def _cut(image_CXYZ: Tensor, place: Sequence[int], size: Size) -> Tensor:
    """Return a window as float32, with zeros where it reaches out of the volume."""
    inside, of_window = _overlap(place, image_CXYZ.shape[1:], size)
    window_CXYZ = torch.zeros((len(image_CXYZ), *size))
    window_CXYZ[:, *of_window] = image_CXYZ[:, *inside]
    return window_CXYZ
