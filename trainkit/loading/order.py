"""Chooses the items of each step: shuffled order, held-out part, parts of a batch, and batches.

All functions depend on their arguments alone: random choices follow from numbers such as (seed, epoch), never from a
global generator, so a run can be resumed exactly from any step.
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
    """An object that can be sliced, for example a sequence or a tensor."""

    def __getitem__(self, part: slice, /) -> _T_co: ...


def shuffled(num: int, *place: int) -> Tensor:
    """Return the numbers 0 … ``num`` − 1 in a random order.

    Args:
        num: How many numbers.
        place: Integers that determine the order, for example (seed, epoch).

    Example:
        >>> sorted(shuffled(4, 7, 0).tolist())
        [0, 1, 2, 3]
    """
    return torch.randperm(num, generator=torch.Generator().manual_seed(random_seed(*place)))


def hold_out(num: int, fraction: float, *place: int) -> tuple[Tensor, Tensor]:
    """Choose at random which of ``num`` items are held out for validation.

    Args:
        num: Number of items.
        fraction: Fraction of the items that is held out, rounded, but at least one item; 0: no item.
        place: Integers that determine the choice, for example the seed and a constant of your own. Without the
            constant, the choice is related to the order that `shuffled` returns for the same integers.

    Returns:
        The items to train on and the items that are held out, both in ascending order.
    """
    num_held_out = max(1, round(num * fraction)) if fraction > 0 else 0
    order = shuffled(num, *place)
    return order[num_held_out:].sort().values, order[:num_held_out].sort().values


def part_of(items: _Sliceable[_T_co], part: int, num_parts: int) -> _T_co:
    """Return one of ``num_parts`` parts of some items: every ``num_parts``-th item, from number ``part`` on.

    The parts are disjoint, differ in size by at most one item, and together contain all items.

    Example:
        >>> part_of(["a", "b", "c", "d", "e"], part=1, num_parts=2)
        ['b', 'd']
    """
    return items[part::num_parts]


def in_batches(index: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Split items into as few batches as possible, whose sizes differ by at most one.

    Args:
        index: (N,) numbers of the items, in order.
        batch_size: Largest size of a batch.

    Example:
        >>> [len(batch) for batch in in_batches(torch.arange(10), 4)]
        [4, 3, 3]
    """
    return index.tensor_split(ceil(len(index) / batch_size)) if len(index) else ()
