from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainkit import CheckpointError
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.optimizer_state import load_optimizer_state, optimizer_state

Make = Callable[[Iterable[Any]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.1),
    "amsgrad, weight decay": lambda groups: torch.optim.Adam(groups, lr=0.1, amsgrad=True, weight_decay=0.1),
    "adamw fused": lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True),
    "sgd with momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.1),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(5, 3, generator=generator)).square().sum().backward()
    optimizer.step()


def in_order(model: nn.Module) -> list[dict[str, Any]]:
    return [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters()), "lr": 0.05}]


def reordered(model: nn.Module) -> list[dict[str, Any]]:
    """The same learning rates, in other groups of other order, size and name."""
    first, last = model[0], model[2]
    return [
        {"params": [last.bias, last.weight], "lr": 0.05, "name": "out"},
        {"params": [first.bias]},
        {"params": [first.weight], "name": "in"},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("regroup", [in_order, reordered])
def test_training_goes_on_bit_for_bit_whatever_the_grouping(
    make: Make, regroup: Callable[[nn.Module], list[dict[str, Any]]], tmp_path: Path
) -> None:
    model = network()
    optimizer = make(in_order(model))
    for seed in range(3):
        step(model, optimizer, seed)
    state = optimizer_state(optimizer, dict(model.named_parameters()))
    checkpoint.write(tmp_path / "c", {"model": model.state_dict(), "optimizer": state})
    for seed in range(3, 6):
        step(model, optimizer, seed)

    read = checkpoint.read(tmp_path / "c")
    resumed = network()
    resumed.load_state_dict(read["model"])
    other = make(regroup(resumed))
    held = other.param_groups[0]
    assert load_optimizer_state(other, dict(resumed.named_parameters()), read["optimizer"]) == ((), ())
    assert other.param_groups[0] is held
    for seed in range(3, 6):
        step(resumed, other, seed)
    for (name, one), two in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two), name
        for key, value in optimizer.state[one].items():
            assert value is None or torch.equal(value, other.state[two][key]), f"{key} of {name}"


def test_torch_itself_swaps_moments_when_groups_are_reordered() -> None:
    """Why this module exists; when this fails, torch has changed."""
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([{"params": [one]}, {"params": [two]}])
    (one.sum() + 2 * two.sum()).backward()
    optimizer.step()
    other = torch.optim.Adam([{"params": [two]}, {"params": [one]}])
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[one]["exp_avg"], optimizer.state[two]["exp_avg"])


def test_a_parameter_of_another_shape_is_refused_by_name() -> None:
    model = network()
    optimizer = OPTIMIZERS["adafactor"](in_order(model))
    step(model, optimizer, 0)
    state = optimizer_state(optimizer, dict(model.named_parameters()))
    wider = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))
    other = OPTIMIZERS["adafactor"](in_order(wider))
    with pytest.raises(CheckpointError, match=r'"2\.weight" has shape \(7, 4\) in this run and \(3, 4\)'):
        load_optimizer_state(other, dict(wider.named_parameters()), state)
    assert not other.state


def test_names_that_do_not_match_are_returned_and_start_anew() -> None:
    model = network()
    optimizer = OPTIMIZERS["adam"](in_order(model))
    step(model, optimizer, 0)
    state = optimizer_state(optimizer, dict(model.named_parameters()))
    names = dict(model.named_parameters())
    names["renamed"] = names.pop("2.bias")
    other = OPTIMIZERS["adam"](in_order(model))
    loaded = load_optimizer_state(other, names, state)
    assert loaded.fresh == ("renamed",)
    assert loaded.unused == ("2.bias",)
    assert names["renamed"] not in other.state
    assert len(other.state) == 3


def test_a_parameter_that_was_not_trained_yet_is_known_and_has_no_moments(tmp_path: Path) -> None:
    model = network()
    model[2].requires_grad_(False)
    optimizer = OPTIMIZERS["adam"](in_order(model))
    step(model, optimizer, 0)
    checkpoint.write(tmp_path / "c", optimizer_state(optimizer, dict(model.named_parameters())))
    other = OPTIMIZERS["adam"](in_order(model))
    loaded = load_optimizer_state(other, dict(model.named_parameters()), checkpoint.read(tmp_path / "c"))
    assert loaded == ((), ())
    assert set(other.state) == set(model[0].parameters())


def test_the_hyperparameters_of_the_run_win() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.8, 0.9), weight_decay=0.3)
    step(model, optimizer, 0)
    other = torch.optim.Adam(model.parameters(), lr=0.7, betas=(0.5, 0.6), foreach=True)
    before = {key: value for key, value in other.param_groups[0].items() if key != "params"}
    names = dict(model.named_parameters())
    load_optimizer_state(other, names, optimizer_state(optimizer, names))
    assert {key: value for key, value in other.param_groups[0].items() if key != "params"} == before


def test_the_state_of_another_optimizer_is_left_alone() -> None:
    model = network()
    names = dict(model.named_parameters())
    adam = OPTIMIZERS["adam"](in_order(model))
    step(model, adam, 0)
    sgd = OPTIMIZERS["sgd with momentum"](in_order(model))
    assert load_optimizer_state(sgd, names, optimizer_state(adam, names)).fresh == tuple(names)
    assert not sgd.state


def test_what_was_loaded_is_not_changed_by_training_on() -> None:
    model = network()
    names = dict(model.named_parameters())
    optimizer = OPTIMIZERS["adam"](in_order(model))
    step(model, optimizer, 0)
    state = optimizer_state(optimizer, names)
    saved = state["parameters"]["0.weight"]["state"]["exp_avg"].clone()
    other = OPTIMIZERS["adam"](in_order(model))
    load_optimizer_state(other, names, state)
    step(model, other, 1)
    assert torch.equal(state["parameters"]["0.weight"]["state"]["exp_avg"], saved)


@pytest.mark.parametrize("fused", [False, True])
def test_the_step_counter_is_kept_where_torch_keeps_it(fused: bool) -> None:
    model = network()
    names = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    step(model, optimizer, 0)
    other = torch.optim.Adam(model.parameters(), fused=fused)
    load_optimizer_state(other, names, optimizer_state(optimizer, names))
    for name, parameter in names.items():
        ours, torchs = other.state[parameter]["step"], optimizer.state[parameter]["step"]
        assert (ours.dtype, ours.device, float(ours)) == (torchs.dtype, torchs.device, 1.0), name
