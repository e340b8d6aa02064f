"""Sums over processes, which are threads here: the bits of the tree, whichever way the numbers are sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from queue import Queue

import pytest
import torch

from trainkit.processes.exchange import Exchange
from trainkit.processes.place import Place
from trainkit.processes.tree import TreeSum


class Thread(Exchange):
    def __init__(self, rank: int, world: int, ways: dict[tuple[int, int], Queue[torch.Tensor]]) -> None:
        super().__init__(Place(rank, world), shards=world)
        self._ways = ways

    def _swap(self, sent: torch.Tensor, received: torch.Tensor, peer: int) -> None:
        self._ways[self.rank, peer].put(sent.clone())
        received.copy_(self._ways[peer, self.rank].get(timeout=10))


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("length", [3, 40_001])  # few are sent as a whole, many in pieces
def test_all_processes_have_the_sum_of_the_tree(world: int, length: int) -> None:
    generator = torch.Generator().manual_seed(world)
    numbers = list(torch.randn(world, length, generator=generator) * torch.logspace(-3, 3, world)[:, None])
    tree = TreeSum()
    for each in numbers:
        tree.add(each.clone())
    whole = tree.total()
    ways = {each: Queue[torch.Tensor]() for each in product(range(world), repeat=2)}  # before two threads ask for one
    with ThreadPoolExecutor(world) as threads:
        sums = threads.map(lambda rank: Thread(rank, world, ways).sum_of_processes(numbers[rank]), range(world))
        assert all(torch.equal(each, whole) for each in sums)
