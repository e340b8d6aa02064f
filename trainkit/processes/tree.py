"""Adds tensors up in a fixed binary tree, so that the bits of a sum do not depend on who adds which part of it.

The parts are numbered. Parts 0 and 1 are added, parts 2 and 3, and so on; then these sums in pairs, until one is left.
A process that has 2^k neighbouring parts can add up its own; the rest of the tree is between processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class TreeSum:
    """A sum of tensors of one shape that come one after the other; at most one for each level of the tree is kept.

    The number of tensors must be a power of two for the tree to be complete.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Tensor]] = []  # (level, sum), levels fall

    def add(self, tensor: Tensor) -> None:
        """Add the next tensor; it may be changed."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            tensor = self._waiting.pop()[1].add_(tensor)
            level += 1
        self._waiting.append((level, tensor))

    def total(self) -> Tensor:
        """Return the sum of the tensors so far."""
        total = self._waiting[-1][1]
        for _, tensor in reversed(self._waiting[:-1]):
            total = tensor.add_(total)
        self._waiting = []
        return total
