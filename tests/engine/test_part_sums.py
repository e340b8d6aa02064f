"""Gradients of the parts of a step: they are added up in the order of the tree, and lie like their parameters."""

from __future__ import annotations

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


def test_gradients_are_those_of_the_tree_in_each_step_and_lie_like_the_parameters() -> None:
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
            for name, each in of_name.items():
                each.grad = None if name == "unused" or (name == "row" and number == 1) else part[name].clone()
            sums.take(torch.tensor([float(number), 1.0]))
        assert sums.finish().tolist() == [6.0, 4.0]
        assert of_name["unused"].grad is None
        for name, each in of_name.items():
            if name == "unused":
                continue
            assert each.grad is not None
            assert torch.equal(each.grad, (parts[0][name] + parts[1][name]) + (parts[2][name] + parts[3][name]))
            assert each.grad.stride() == each.stride()
            each.grad = None  # as the next step begins
