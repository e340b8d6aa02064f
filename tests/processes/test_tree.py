"""The tree: every way to share the parts among processes adds them up to the same bits."""

from __future__ import annotations

import torch

from trainkit.processes.tree import TreeSum


def tree(parts: list[torch.Tensor]) -> torch.Tensor:
    total = TreeSum()
    for part in parts:
        total.add(part.clone())
    return total.total()


def test_halves_quarters_and_the_whole_have_the_same_bits() -> None:
    parts = list(torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 8)[:, None])
    whole = tree(parts)
    for size in (1, 2, 4):
        assert torch.equal(tree([tree(parts[start : start + size]) for start in range(0, 8, size)]), whole)
    assert not torch.equal(torch.stack(parts).sum(0), whole)  # another order does matter here


def test_any_number_of_parts_is_added_up() -> None:
    for number in range(1, 10):
        parts = [torch.full((3,), float(each)) for each in range(number)]
        assert tree(parts).tolist() == [number * (number - 1) / 2] * 3
