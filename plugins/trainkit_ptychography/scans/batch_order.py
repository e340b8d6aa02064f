"""Which scan points a step sees together: at random, neighbours, or points far from each other.

Both spatial orders rest on one cut of the scan into cells of given sizes: it is halved again and again across its
longer extent, along axes turned by a random angle, so that the cells differ from epoch to epoch.

Shapes: N = scan points.
"""

from __future__ import annotations

from math import pi
from typing import Literal

import torch
from torch import Tensor

BatchOrder = Literal["random", "compact", "sparse"]


def arrange(order: BatchOrder, positions_N2: Tensor, num: int, generator: torch.Generator) -> list[Tensor]:
    """Deal points out into batches.

    Args:
        order: "random" keeps the sequence of the points, which the caller has shuffled; "compact" puts neighbours into
            a batch; "sparse" one point from each neighbourhood.
        positions_N2: (row, column) of each point, on the CPU.
        num: Number of batches, at most N.
        generator: The only source of chance.

    Returns:
        Places in ``positions_N2``, batch by batch: each once, in batches whose sizes differ by at most one.
    """
    count = len(positions_N2)
    if order == "random":
        return list(torch.arange(count).tensor_split(num))
    turned_N2 = positions_N2 @ _rotation(generator).to(positions_N2)
    if order == "compact":
        sizes = [len(part) for part in torch.arange(count).tensor_split(num)]
        cells = _cells(turned_N2, sizes)
        return [cells[place] for place in torch.randperm(num, generator=generator).tolist()]
    # Cells of as many points as there are batches, and one with the rest: each batch gets one point of each cell.
    sizes = [num] * (count // num) + ([count % num] if count % num else [])
    dealt: list[list[int]] = [[] for _ in range(num)]
    for cell in _cells(turned_N2, sizes):
        for batch, place in zip(torch.randperm(num, generator=generator).tolist(), cell.tolist(), strict=False):
            dealt[batch].append(place)
    return [torch.tensor(places) for places in dealt]


def _cells(positions_N2: Tensor, sizes: list[int]) -> list[Tensor]:
    """Cut points into compact cells of these sizes."""
    done: list[Tensor] = []
    waiting = [(torch.arange(len(positions_N2)), sizes)]
    while waiting:
        places, wanted = waiting.pop()
        if len(wanted) == 1:
            done.append(places)
            continue
        inside_P2 = positions_N2[places]
        axis = int((inside_P2.amax(0) - inside_P2.amin(0)).argmax())
        sequence = places[inside_P2[:, axis].argsort(stable=True)]
        half = len(wanted) // 2
        first = sum(wanted[:half])
        waiting += [(sequence[first:], wanted[half:]), (sequence[:first], wanted[:half])]
    return done


def _rotation(generator: torch.Generator) -> Tensor:
    angle = 2 * pi * torch.rand((), generator=generator, dtype=torch.float64)
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
