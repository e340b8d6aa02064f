"""The public suite finds faults of what components build: each check fails on a part with the fault that it is for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from clients.toy import Count, Line, LiveLine, Perceptron, Squares
from torch import Tensor, nn

from trainkit import Context, Data, Hook, Loss, Metric, Model, component, part_of, testing

TRIAL = testing.Trial(Line(), Perceptron(), Squares())


# ---- models ---------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """A network with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        if fault == "seeds torch":
            torch.manual_seed(3)
        if fault == "seeds numpy":
            np.random.seed(3)
        self.fault, self.line = fault, nn.Linear(3, 1)
        self.spare = nn.Linear(2, 2) if fault in ("in no group", "in two groups") else None
        self.hidden = torch.randn(1) if fault == "forgets" else 0.0
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: Mapping[str, Tensor]) -> Any:
        y = self.line(batch["x"]) + self.hidden
        match self.fault:
            case "tensor":
                return y
            case "detached":
                y = y.detach()
            case "infinite":
                y = y / 0.0
            case "infinite gradient":
                y = y + (0.0 * self.line.weight.sum()).sqrt() * 0.0
            case "counts":
                self.seen += 1.0
            case "unsteady":
                self.calls += 1
                y = y + self.calls
            case "item":
                y = y / max(1.0, y.abs().max().item())
            case "if":
                y = y if y.mean() > 0 else -y
            case "numpy":
                y = y + float(batch["x"].numpy().mean())
            case "mask":
                y = y + batch["x"][batch["x"] > 0].mean()
            case "seeds in forward":
                random.seed(1)
        return {"y": y}


@component
class Faulty(Model):
    """A model with one fault.

    Attributes:
        fault: What is wrong with it.
    """

    fault: str = ""

    def groups(self) -> dict[str, bool]:
        return {"other": True, "more": True} if self.fault == "stated" else {"other": True}

    def build(self, data: Any) -> nn.Module:
        return Network(self.fault)

    def parameter_groups(self, model: Any) -> dict[str, Any]:
        match self.fault:
            case "in no group":
                return {"other": model.line.parameters()}
            case "in two groups":
                return {"other": [*model.parameters(), *model.spare.parameters()]}
            case "not stated":
                return {"other": [model.line.weight], "more": [model.line.bias]}
            case "foreign":
                return {"other": [*model.parameters(), nn.Parameter(torch.zeros(1))]}
        return {"other": model.parameters()}


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        ("seeds torch", testing.builds_a_network_that_learns, "Faulty.build seeds the global random numbers of torch"),
        ("seeds numpy", testing.builds_a_network_that_learns, "random numbers of numpy"),
        ("seeds in forward", testing.builds_a_network_that_learns, "Network.forward seeds the global random .* Python"),
        ("tensor", testing.builds_a_network_that_learns, "forward returns Tensor, not a mapping"),
        ("detached", testing.builds_a_network_that_learns, "does not require grad|depends on a parameter"),
        ("infinite", testing.builds_a_network_that_learns, '"y" of a new network is not finite'),
        ("infinite gradient", testing.builds_a_network_that_learns, "gradients of line.weight .*not finite"),
        ("in no group", testing.divides_its_parameters_into_groups, "spare.weight is in no group"),
        ("in two groups", testing.divides_its_parameters_into_groups, "in the groups other and other"),
        ("stated", testing.divides_its_parameters_into_groups, r"groups\(\) states \['more'\], which"),
        ("not stated", testing.divides_its_parameters_into_groups, r"\['more'\], which groups\(\) lacks"),
        ("foreign", testing.divides_its_parameters_into_groups, "not one of the network"),
        ("forgets", testing.is_restored_from_its_state, 'computes another "y": .* neither a parameter nor a buffer'),
        ("counts", testing.is_restored_from_its_state, 'changes "seen" of the state'),
        ("unsteady", testing.is_restored_from_its_state, '"y" differs when a batch is evaluated twice'),
        ("item", testing.steps_without_waiting, "values of a tensor in test_live_conformance.py, line"),
        ("if", testing.steps_without_waiting, "values of a tensor in test_live_conformance.py, line"),
        ("numpy", testing.steps_without_waiting, "values of a tensor in test_live_conformance.py, line"),
        ("mask", testing.steps_without_waiting, "values of a tensor in test_live_conformance.py, line"),
    ],
)
def test_a_faulty_model_is_found(fault: str, check: Any, said: str) -> None:
    model = Faulty(fault=fault)
    with pytest.raises(AssertionError, match=said):
        check(model, testing.Trial(Line(), model, Squares()))


def test_a_model_without_a_fault_passes_also_without_a_loss() -> None:
    for loss in (Squares(), None):
        trial = testing.Trial(Line(), Faulty(), loss)
        before = torch.get_rng_state()
        testing.builds_a_network_that_learns(Faulty(), trial)
        testing.divides_its_parameters_into_groups(Faulty(), trial)
        testing.is_restored_from_its_state(Faulty(), trial)
        testing.steps_without_waiting(Faulty(), trial)
        assert torch.equal(before, torch.get_rng_state())


# ---- losses ---------------------------------------------------------------------------------------------------------


class RatioOfSums:
    """The errors over the truth, both summed."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def sums(self, outputs: Any, batch: Any, model: nn.Module) -> Tensor:
        errors = (outputs["y"] - batch["y"]).square()
        if self.fault == "shape of sums":
            return errors.flatten()
        return torch.stack([errors.mean() if self.fault == "mean in sums" else errors.sum(), batch["y"].square().sum()])

    def value(self, sums: Tensor) -> Tensor:
        return sums[0] / sums[-1]

    def __call__(self, outputs: Any, batch: Any, model: nn.Module) -> Tensor:
        return self.value(self.sums(outputs, batch, model))


@component
class FaultyLoss(Loss):
    """A loss with one fault.

    Attributes:
        fault: What is wrong with it.
        how: How it says that it combines.
    """

    fault: str = ""
    how: Any = "mean"

    def combine(self) -> Any:
        return self.how

    def build(self, data: Any) -> Any:
        if self.how == "sums" and self.fault != "no sums":
            return RatioOfSums(self.fault)

        def loss(outputs: Any, batch: Any, model: nn.Module) -> Any:
            errors = (outputs["y"] - batch["y"]).square()
            match self.fault:
                case "vector":
                    return errors
                case "number":
                    return errors.mean().item()
                case "detached":
                    return errors.mean().detach()
                case "sum":
                    return errors.sum()
                case "ratio":
                    return errors.sum() / batch["y"].square().sum()
                case "random":
                    return errors.mean() * torch.rand(())
                case "nan":
                    return (errors - 1e9).sqrt().mean()
                case "root":
                    return errors.mean() + (0.0 * model[0].weight.sum()).sqrt()
                case "item":
                    return errors.mean() / max(errors.max().item(), 1.0)
                case "weights":
                    return model[0].weight.square().sum()
            return errors.mean()

        return loss


@pytest.mark.parametrize(
    ("fault", "how", "check", "said"),
    [
        ("vector", "mean", testing.is_a_differentiable_scalar, r"it is a tensor \(8, 1\) of torch.float32"),
        ("number", "mean", testing.is_a_differentiable_scalar, "it is float"),
        ("detached", "mean", testing.is_a_differentiable_scalar, "depends on no parameter"),
        ("random", "mean", testing.is_a_differentiable_scalar, "FaultyLoss draws .* random numbers of torch"),
        ("nan", "mean", testing.is_a_differentiable_scalar, "the loss of a new network is nan"),
        ("root", "mean", testing.is_a_differentiable_scalar, "gradient of the loss is not finite"),
        ("sum", "mean", testing.combines_as_it_says, "the mean over the items of both parts is"),
        ("ratio", "mean", testing.combines_as_it_says, "the mean over the items of both parts is"),
        ("no sums", "sums", testing.combines_as_it_says, "needs the methods sums and value"),
        ("mean in sums", "sums", testing.combines_as_it_says, "sums of one part"),
        ("shape of sums", "sums", testing.combines_as_it_says, "the same for all parts"),
        ("", "once", testing.combines_as_it_says, "must not depend on the items"),
        ("item", "mean", testing.computes_without_waiting, "values of a tensor in test_live_conformance.py"),
    ],
)
def test_a_faulty_loss_is_found(fault: str, how: str, check: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(FaultyLoss(fault=fault, how=how), TRIAL)


@pytest.mark.parametrize(("fault", "how"), [("", "mean"), ("", "sums"), ("weights", "once")])
def test_a_loss_without_a_fault_passes(fault: str, how: str) -> None:
    for check in (testing.is_a_differentiable_scalar, testing.combines_as_it_says, testing.computes_without_waiting):
        check(FaultyLoss(fault=fault, how=how), TRIAL)


# ---- metrics --------------------------------------------------------------------------------------------------------


class LiveErrors:
    """The mean error, with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.errors: list[Any] = []

    def update(self, outputs: Any, batch: Any) -> None:
        errors = (outputs["y"] - batch["y"]).abs()[:, 0]
        if self.fault == "random":
            random.random()
        self.errors += [errors.mean().item()] if self.fault == "mean of means" else errors.tolist()

    def compute(self) -> Any:
        errors = self.errors
        if self.fault != "remembers":
            self.errors = []
        mean = sum(errors) / len(errors)
        if self.fault == "remembers":
            return {"error": float(len(errors))}
        if self.fault == "list":
            return [mean]
        return {"mistake" if self.fault == "name" else "error": torch.tensor(mean) if self.fault == "tensor" else mean}

    def share(self) -> Any:
        return (each for each in self.errors) if self.fault == "generator" else self.errors

    def merge(self, shares: Any) -> None:
        self.errors = shares[0] if self.fault == "first share" else [error for each in shares for error in each]


class WithoutMerge(LiveErrors):
    merge = property()  # type: ignore[assignment]


@component
class FaultyMetric(Metric):
    """A metric with one fault.

    Attributes:
        fault: What is wrong with it.
    """

    fault: str = ""

    def names(self) -> tuple[str, ...]:
        return ("error",)

    def build(self, data: Any) -> Any:
        return (WithoutMerge if self.fault == "no merge" else LiveErrors)(self.fault)


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        ("list", testing.computes_numbers_and_forgets, "compute returns list"),
        ("tensor", testing.computes_numbers_and_forgets, 'Tensor for "error", not a float'),
        ("name", testing.computes_numbers_and_forgets, r"\['mistake'\], which names\(\) does not state"),
        ("remembers", testing.computes_numbers_and_forgets, "does not begin anew"),
        ("random", testing.computes_numbers_and_forgets, "LiveErrors draws .* of Python"),
        ("mean of means", testing.does_not_depend_on_how_items_are_batched, "not means over batches"),
        ("generator", testing.combines_what_processes_saw, "cannot be sent to another process"),
        ("first share", testing.combines_what_processes_saw, "where two share it"),
        ("no merge", testing.combines_what_processes_saw, "has share, but not merge"),
    ],
)
def test_a_faulty_metric_is_found(fault: str, check: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(FaultyMetric(fault=fault), TRIAL)


def test_a_metric_without_a_fault_passes() -> None:
    testing.computes_numbers_and_forgets(FaultyMetric(), TRIAL)
    testing.does_not_depend_on_how_items_are_batched(FaultyMetric(), TRIAL)
    testing.combines_what_processes_saw(FaultyMetric(), TRIAL)


# ---- data -----------------------------------------------------------------------------------------------------------


class LiveShares:
    """Six items in batches of three, divided into parts, with one fault."""

    batches_per_epoch = 2

    def __init__(self, context: Context, fault: str) -> None:
        self.exchange, self.fault = context.exchange, fault
        if fault == "seeds":
            np.random.seed(0)

    def train(self, epoch: int, start: int) -> Any:
        for number in range(start, 2):
            yield from self.parts([3 * number, 3 * number + 1, 3 * number + 2])

    def evaluate(self, split: str) -> Any:
        if self.fault == "draws":
            torch.rand(1)
        yield from self.parts([0, 1, 2, 3, 4])

    def parts(self, items: list[int]) -> Any:
        for part in self.exchange.parts:
            mine = items if self.fault == "whole" else part_of(items, part, self.exchange.num_parts)
            if self.fault == "uneven" and self.exchange.num_parts > 1:
                mine = [items, []][part]
            if self.fault == "rank" and self.exchange.world > 1:
                mine = part_of(items, 1 - part, 2)
            yield {"index": torch.tensor(mine, dtype=torch.long)}


@component
class Shares(Data):
    """Data with one fault.

    Attributes:
        fault: What is wrong with them.
    """

    divides_batches: ClassVar[bool] = True
    fault: str = ""

    def splits(self) -> tuple[str, ...]:
        return "train", "val"

    def build(self, context: Context) -> Any:
        return LiveShares(context, self.fault)


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        ("seeds", testing.opens_without_seeding, "Shares.build seeds the global random numbers of numpy"),
        ("draws", testing.yields_batches_by_seed_epoch_and_number, "LiveShares.evaluate draws"),
        ("whole", testing.divides_batches_among_processes, r"batch 0 of train have the items \[0, 0, 1, 1, 2, 2\]"),
        ("uneven", testing.divides_batches_among_processes, "have 3 and 0 items"),
        ("rank", testing.divides_batches_among_processes, "other shares to two shards of one process"),
    ],
)
def test_faulty_data_are_found(fault: str, check: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(Shares(fault=fault))


def test_data_without_a_fault_pass() -> None:
    for check in (testing.opens_without_seeding, testing.divides_batches_among_processes):
        check(Shares())
        check(Line())
    testing.yields_batches_by_seed_epoch_and_number(Shares())


# ---- hooks ----------------------------------------------------------------------------------------------------------


class LiveFault:
    def __init__(self, fault: str) -> None:
        self.fault, self.steps = fault, 0

    def on_step_end(self, state: Any) -> None:
        self.steps += 1
        match self.fault:
            case "changes weights":
                with torch.no_grad():
                    next(state.model.parameters()).mul_(0.5)
            case "draws":
                torch.rand(1)
            case "fails":
                raise ValueError("no such thing")
        state.log("train/steps", self.steps)

    def state_dict(self) -> dict[str, int]:
        return {} if self.fault == "forgets" else {"steps": self.steps}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.steps = saved.get("steps", 0) + (self.fault == "restores badly")


@component
class FaultyHook(Hook):
    """A hook with one fault.

    Attributes:
        fault: What is wrong with it.
    """

    fault: str = ""

    def names(self) -> tuple[str, ...]:
        return ("train/steps",)

    def build(self, context: Context) -> object:
        return LiveFault(self.fault)


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (
            "changes weights",
            testing.leaves_the_training_as_it_is,
            'FaultyHook is "observe", but .*model/0.weight',
        ),
        ("draws", testing.leaves_the_training_as_it_is, "trains to other bits"),
        ("fails", testing.leaves_the_training_as_it_is, "a small run with it fails: .*no such thing"),
        ("forgets", testing.continues_after_a_resume, "logs other values|ends otherwise"),
        ("restores badly", testing.continues_after_a_resume, "train/steps|parts/hooks.tried"),
    ],
)
@pytest.mark.slow
def test_a_faulty_hook_is_found(fault: str, check: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(FaultyHook(fault=fault), [TRIAL])


@pytest.mark.slow
def test_a_hook_without_a_fault_passes() -> None:
    for hook in (FaultyHook(), Count()):
        testing.leaves_the_training_as_it_is(hook, [TRIAL])
        testing.continues_after_a_resume(hook, [TRIAL])


# ---- what a part is tried with --------------------------------------------------------------------------------------


def test_a_part_without_anything_to_try_it_with_is_skipped_with_what_to_give() -> None:
    from unittest import SkipTest

    with pytest.raises(SkipTest, match="cannot be tried in a run: no data, model and loss"):
        testing.continues_after_a_resume(FaultyHook(), [testing.Trial(Line(), Perceptron())])


def test_points_of_the_toy_are_not_the_same_for_each_seed() -> None:
    """Else the checks above would pass on data that ignore the seed."""
    assert not torch.equal(LiveLine(1, 2).batch(0, 0)["x"], LiveLine(2, 2).batch(0, 0)["x"])
