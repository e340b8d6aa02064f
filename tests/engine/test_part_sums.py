"""Gradients of the parts of a step: they are added up in the order of the tree, and lie like their parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from trainkit.engine.part_sums import PartSums
from trainkit.processes.exchange import Exchange


def parameters() -> dict[str, nn.Parameter]:
    volumes = torch.zeros(4, 2, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d)
    each = {
        "row": torch.zeros(5),
        "channels last": volumes,
        "complex": torch.zeros(3, 3, dtype=torch.complex64),
        "double": torch.zeros(7, dtype=torch.float64),
        "transposed": torch.zeros(5, 4).t(),
        "unused": torch.zeros(2),
    }
    return {name: nn.Parameter(tensor) for name, tensor in each.items()}


def backward(of_name: Mapping[str, nn.Parameter], slopes: Mapping[str, torch.Tensor]) -> None:
    """Make a backward pass in which each parameter gets what is given for it, and those that are left out get none."""
    terms = [(of_name[name] * slope.conj()).real.sum().double() for name, slope in slopes.items()]
    torch.stack(terms).sum().backward()


@pytest.mark.parametrize("adds_up", [True, False])
def test_gradients_are_those_of_the_tree_in_each_step_and_lie_like_the_parameters(adds_up: bool) -> None:
    of_name = parameters()
    sums = PartSums(Exchange(shards=4))
    sums.enter_epoch(of_name)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        parts = [
            {name: torch.randn(each.shape, dtype=each.dtype, generator=generator) for name, each in of_name.items()}
            for _ in range(4)
        ]
        for number, part in enumerate(parts):
            if number == 1:
                part["row"] = torch.zeros(5)  # this part has no gradient for it
            used = [name for name in of_name if name != "unused" and not (name == "row" and number == 1)]
            backward(of_name, {name: part[name] for name in used})
            sums.take(torch.tensor([float(number), 1.0]), adds_up)
        assert sums.finish().tolist() == [6.0, 4.0]
        assert of_name["unused"].grad is None
        for name, each in of_name.items():
            if name == "unused":
                continue
            assert each.grad is not None
            assert torch.equal(each.grad, (parts[0][name] + parts[1][name]) + (parts[2][name] + parts[3][name]))
            assert each.grad.stride() == each.stride()
            each.grad = None  # as the next step begins


@pytest.mark.parametrize("adds_up", [True, False])
@pytest.mark.parametrize("contribute", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1)])
def test_a_gradient_of_minus_zero_is_added_to_the_zero_of_parts_that_have_none(
    contribute: tuple[int, ...], adds_up: bool
) -> None:
    of_name = {"sometimes": nn.Parameter(torch.ones(2)), "always": nn.Parameter(torch.ones(2))}
    sums = PartSums(Exchange(shards=4))
    sums.enter_epoch(of_name)
    for part in range(4):
        names = ["always", *(["sometimes"] if part in contribute else [])]
        backward(of_name, {name: torch.tensor([-0.0, 1.0]) for name in names})
        sums.take(torch.zeros(1), adds_up)
    sums.finish()
    sometimes, always = (each.grad for each in of_name.values())
    assert sometimes is not None
    assert sometimes.tolist() == [0.0, float(len(contribute))]
    assert not torch.signbit(sometimes[0])  # 0 and -0 are 0
    assert always is not None
    assert torch.signbit(always[0])  # -0 and -0 are -0
