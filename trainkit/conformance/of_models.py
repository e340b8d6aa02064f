"""Checks of what a model builds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainkit.conformance.randomness import made_without_seeding
from trainkit.conformance.trial import Trial
from trainkit.conformance.waits import step_without_values
from trainkit.contracts import Model
from trainkit.randomness import generators_kept


def builds_a_network_that_learns(model: Model, trial: Trial) -> None:
    """Check that outputs are named finite tensors, and that a gradient gets to parameters and is finite."""
    network = made_without_seeding(lambda: trial.network_drawn(), f"{type(model).__name__}.build")
    assert isinstance(network, nn.Module), f"build returns {type(network).__name__}, not a torch.nn.Module"
    batch = trial.batches()[0]
    outputs = made_without_seeding(lambda: network(batch), f"{type(network).__name__}.forward")
    assert isinstance(outputs, Mapping), f"forward returns {type(outputs).__name__}, not a mapping of name -> tensor"
    for name, value in _tensors(outputs).items():
        assert torch.isfinite(value).all(), f'the output "{name}" of a new network is not finite'
    total = _loss(network, trial, outputs, batch)
    assert total.requires_grad, "no output depends on a parameter; is something detached, or computed under no_grad?"
    torch.autograd.backward(total)
    grads = {
        name: each.grad for name, each in network.named_parameters() if each.requires_grad and each.grad is not None
    }
    assert grads, "no parameter gets a gradient from the outputs"
    odd = [name for name, grad in grads.items() if not torch.isfinite(grad).all()]
    assert not odd, f"the gradients of {', '.join(odd[:3])} are not finite in the first step"


def divides_its_parameters_into_groups(model: Model, trial: Trial) -> None:
    """Check that every trainable parameter is in exactly one group, and that the groups are those that are stated."""
    network = trial.network()
    groups = {name: list(parameters) for name, parameters in model.parameter_groups(network).items()}
    stated = model.groups()
    if stated is not None:
        assert set(groups) <= set(stated), (
            f"parameter_groups has {sorted(set(groups) - set(stated))}, which groups() lacks"
        )
        missing = sorted(set(stated) - set(groups))
        assert not missing, f"groups() states {missing}, which parameter_groups lacks"
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    homes: dict[int, list[str]] = {}
    for group, parameters in groups.items():
        for each in parameters:
            assert id(each) in named, f"the group {group} has a parameter that is not one of the network"
            homes.setdefault(id(each), []).append(group)
    for name, each in network.named_parameters():
        found = homes.get(id(each), [])
        if each.requires_grad:
            assert found, f"the parameter {name} is in no group, so it can never train"
        assert len(found) < 2, f"the parameter {name} is in the groups {' and '.join(found)}; it must be in one"


def is_restored_from_its_state(model: Model, trial: Trial) -> None:
    """Check that a network with the loaded state of another one computes the same, and evaluating changes nothing."""
    network, other = trial.network(), trial.network(seed=2)
    batch = trial.batches()[0]
    with generators_kept():
        optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=1e-4)
        torch.autograd.backward(_loss(network, trial, network(batch), batch))
        optimizer.step()
        network.eval(), other.eval()
        saved = copy.deepcopy(network.state_dict())
        with torch.no_grad():
            outputs = _tensors(network(batch))
            again = _tensors(network(batch))
            changed = _first_difference(saved, network.state_dict())
            assert changed is None, (
                f'evaluating a batch changes "{changed}" of the state; validation must change nothing'
            )
            same = _first_difference(outputs, again)
            assert same is None, f'the output "{same}" differs when a batch is evaluated twice in eval mode'
            other.load_state_dict(saved)
            lost = _first_difference(saved, other.state_dict())
            assert lost is None, f'"{lost}" of the state is another one after it was saved and loaded'
            differs = _first_difference(outputs, _tensors(other(batch)))
    assert differs is None, (
        f'a network with the loaded state computes another "{differs}": something that it computes with is neither a '
        "parameter nor a buffer, so no checkpoint has it"
    )


def steps_without_waiting(model: Model, trial: Trial) -> None:
    """Check that a step needs no values of tensors, for which a GPU would have to wait."""
    loss = None if trial.loss is None else trial.loss.build(trial.live_data())
    step_without_values(trial.network(), trial.batches()[0], loss)


def _loss(network: nn.Module, trial: Trial, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> torch.Tensor:
    if trial.loss is not None:
        value: torch.Tensor = trial.loss.build(trial.live_data())(outputs, batch, network)
        return value
    tensors = [each for each in _tensors(outputs).values() if each.requires_grad]
    return torch.stack([each.abs().square().mean() for each in tensors]).sum() if tensors else torch.zeros(())


def _tensors(values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: each for name, each in values.items() if isinstance(each, torch.Tensor)}


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first name under which two mappings do not have the same bits; None: there is none."""
    for name in dict.fromkeys([*one, *other]):
        mine, its = one.get(name), other.get(name)
        if isinstance(mine, torch.Tensor) and isinstance(its, torch.Tensor):
            if mine.shape != its.shape or not torch.equal(mine.nan_to_num(), its.nan_to_num()):
                return name
        elif repr(mine) != repr(its):
            return name
    return None
