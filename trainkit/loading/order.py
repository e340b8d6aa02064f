"""Which items a step sees: a shuffled order, a part that is held out, a process's share, and batches.

All of these are functions of their arguments alone: what is random follows from numbers such as (seed, epoch), never
from a global generator, so that a run can go on exactly from any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from trainkit.randomness import random_seed

_T_co = TypeVar("_T_co", covariant=True)


class _Sliceable(Protocol[_T_co]):
    """Something that has slices: a sequence, a tensor."""

    def __getitem__(self, part: slice, /) -> _T_co: ...


def shuffled(num: int, *place: int) -> Tensor:
    """Return the numbers 0 … ``num`` − 1 in a random order.

    Args:
        num: How many.
        place: What the order depends on, for example (seed, epoch).

    Example:
        >>> sorted(shuffled(4, 7, 0).tolist())
        [0, 1, 2, 3]
    """
    return torch.randperm(num, generator=torch.Generator().manual_seed(random_seed(*place)))


def hold_out(num: int, fraction: float, *place: int) -> tuple[Tensor, Tensor]:
    """Choose at random which of ``num`` items are held out for validation.

    Args:
        num: How many items there are.
        fraction: The part that is held out, rounded, at least one item; 0: none is.
        place: What the choice depends on, for example the seed and a number of your own. Without such a number it
            would be the choice that `shuffled` makes of the same numbers.

    Returns:
        The items to train on and the items that are held out, both in ascending order.
    """
    num_held_out = max(1, round(num * fraction)) if fraction > 0 else 0
    order = shuffled(num, *place)
    return order[num_held_out:].sort().values, order[:num_held_out].sort().values


def process_share(items: _Sliceable[_T_co], rank: int, world: int) -> _T_co:
    """Return the items of one of ``world`` processes: every ``world``-th, from ``rank`` on.

    The shares of all ranks are disjoint, and together they are all items. They differ by at most one item.

    Example:
        >>> process_share(["a", "b", "c", "d", "e"], rank=1, world=2)
        ['b', 'd']
    """
    return items[rank::world]


def in_batches(index: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Cut an order into as few batches as possible, whose sizes differ by at most one.

    Args:
        index: (N,) items, in the order in which they are to be seen.
        batch_size: The size of a batch at most.

    Example:
        >>> [len(batch) for batch in in_batches(torch.arange(10), 4)]
        [4, 3, 3]
    """
    return index.tensor_split(ceil(len(index) / batch_size)) if len(index) else ()
