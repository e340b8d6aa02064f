"""Activations that are computed again in the backward pass, held against those that are kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from clients.normed import Network
from same import same
from torch import nn

from trainkit import recompute


def one_step(model: nn.Module, batch: Any, precision: torch.dtype | None = None) -> dict[str, Any]:
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        loss = (model(batch)["y"].float() - batch["y"]).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: each.grad for name, each in model.named_parameters()}
    return {"loss": loss.detach(), "gradients": gradients, "state": dict(model.state_dict()), "next": torch.rand(3)}


def points() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 3, generator=generator)
    return {"index": torch.arange(16), "x": x, "y": x.sum(1, keepdim=True)}


def blocks(model: Network) -> list[nn.Module]:
    return [*model.encoder.children(), *model.head.children()]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_gradients_statistics_of_batch_norm_and_draws_of_dropout_are_the_same_to_the_bit(
    precision: torch.dtype | None,
) -> None:
    kept = Network()
    again = copy.deepcopy(kept)
    assert recompute(blocks(again)) == 4
    assert list(again.state_dict()) == list(kept.state_dict())
    calls: list[bool] = []
    again.encoder["fine"][0].register_forward_hook(lambda *_: calls.append(True))
    assert same(one_step(kept, points(), precision), one_step(again, points(), precision))
    assert len(calls) == 2


def test_a_copy_of_the_model_computes_with_its_own_weights() -> None:
    model = Network().eval()
    recompute(blocks(model))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = model(points())["y"].clone()
        for parameter in copied.parameters():
            parameter.zero_()
        assert same(model(points())["y"], before)
        assert not copied(points())["y"].any()


def test_what_is_evaluated_is_computed_once() -> None:
    model = Network().eval()
    recompute(blocks(model))
    calls: list[bool] = []
    model.encoder["fine"][0].register_forward_hook(lambda *_: calls.append(True))
    with torch.no_grad():
        model(points())
    assert len(calls) == 1
