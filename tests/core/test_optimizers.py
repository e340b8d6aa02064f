"""The built-in optimizers against torch's own."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from trainkit import Optimizer
from trainkit.optimizers.adam import Adam
from trainkit.optimizers.adamw import AdamW
from trainkit.optimizers.sgd import SGD

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW), (SGD, torch.optim.SGD)]
CHOSEN: list[tuple[Optimizer, dict[str, Any]]] = [
    (Adam(lr=0.02), {"betas": (0.5, 0.9), "weight_decay": 0.1}),
    (Adam(lr=0.02, amsgrad=True, eps=1e-4), {"eps": 1e-2}),
    (AdamW(lr=0.02), {"weight_decay": 0.3}),
    (AdamW(lr=0.02, betas=(0.8, 0.95)), {"amsgrad": True}),
    (SGD(lr=0.02), {"momentum": 0.9}),
    (SGD(lr=0.02, momentum=0.9, nesterov=True), {"nesterov": False, "dampening": 0.5}),
    (SGD(lr=0.02, weight_decay=0.1), {"weight_decay": 0.0}),
]
TORCHS = dict(PAIRS)


def two_parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(4, 3, generator=generator)
    return [torch.nn.Parameter(real), torch.nn.Parameter(torch.complex(real[0], real[1]))]


def train(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    for _ in range(20):
        optimizer.zero_grad()
        sum((each.abs() ** 2 - each.abs()).sum() for each in parameters).backward()
        optimizer.step()
    return [each.detach().clone() for each in parameters]


@pytest.mark.parametrize(("ours", "overrides"), CHOSEN, ids=lambda each: repr(each))
def test_results_are_torchs_bit_for_bit_with_a_groups_overrides(ours, overrides):
    a, b = two_parameters()
    built = ours.build([{"name": "a", "params": [a], "lr": 0.1}, {"name": "b", "params": [b], "lr": 0.01, **overrides}])
    settings = attrs.asdict(ours)
    c, d = two_parameters()
    theirs = TORCHS[type(ours)]([{"params": [c], "lr": 0.1}, {"params": [d], "lr": 0.01, **overrides}], **settings)
    for x, y in zip(train(built, [a, b]), train(theirs, [c, d]), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(a, two_parameters()[0])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_settings_have_torchs_names_and_defaults(ours, theirs):
    arguments = inspect.signature(theirs).parameters
    for field in attrs.fields(ours):
        assert field.name in arguments
        assert field.default == arguments[field.name].default


def test_the_groups_keep_their_names_and_are_not_written_to():
    a, b = two_parameters()
    groups = [{"name": "a", "params": [a], "lr": 0.1}, {"name": "b", "params": [b], "lr": 0.2}]
    built = Adam().build(groups)
    assert [group["name"] for group in built.param_groups] == ["a", "b"]
    assert [set(group) for group in groups] == [{"name", "params", "lr"}] * 2


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (Adam, {"betas": (0.9, 1.0)}),
        (Adam, {"eps": -1e-8}),
        (AdamW, {"weight_decay": float("inf")}),
        (AdamW, {"lr": 0.0}),
        (SGD, {"momentum": 1.5}),
        (SGD, {"lr": float("nan")}),
    ],
)
def test_settings_outside_their_range_are_refused_by_name(made, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        made(**wrong)


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}])
def test_nesterov_that_torch_would_refuse_is_a_problem_beforehand(settings):
    recipe: Any = SimpleNamespace()
    with pytest.raises(ValueError, match="Nesterov"):
        torch.optim.SGD(two_parameters(), **settings)
    (problem,) = SGD(**settings).problems(recipe)
    assert problem.key == "nesterov"
    assert list(SGD(nesterov=True, momentum=0.9).problems(recipe)) == []
