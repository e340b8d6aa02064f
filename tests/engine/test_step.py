"""The step by itself: how the parts of a step combine to one loss and one gradient."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainkit import Context, Monitor, PartError, State
from trainkit.engine.losses import Losses, Term
from trainkit.engine.step import Step
from trainkit.groups.optimizers import Optimizers

SIZES = (5, 2, 3)


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))

    def forward(self, batch: Any) -> Any:
        return {"y": torch.sigmoid(batch["x"] @ self.weight)}


class Dice:
    """One minus twice the overlap over both sizes, all summed over items first."""

    def sums(self, outputs: Any, batch: Any, model: Any) -> torch.Tensor:
        y, t = outputs["y"], batch["t"]
        return torch.stack([(y * t).sum(), y.sum() + t.sum()])

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        return 1 - 2 * sums[0] / sums[1]

    def __call__(self, outputs: Any, batch: Any, model: Any) -> torch.Tensor:
        return self.value(self.sums(outputs, batch, model))


def squares(outputs: Any, batch: Any, model: Any) -> torch.Tensor:
    return (outputs["y"] - batch["t"]).square().mean()


def ridge(outputs: Any, batch: Any, model: Any) -> torch.Tensor:
    return model.weight.square().sum()


TERMS = {
    "squares": Term("squares", 1.0, squares, True, "mean"),
    "dice": Term("dice", 0.5, Dice(), True, "sums"),
    "ridge": Term("ridge", 0.1, ridge, False, "once"),
}


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "index": torch.arange(size),
            "x": torch.randn(size, 2, generator=generator, dtype=torch.float64),
            "t": torch.randint(0, 2, (size,), generator=generator).double(),
        }
        for size in SIZES
    ]


def step(names: tuple[str, ...], given: list[dict[str, torch.Tensor]]) -> State:
    model = Line()
    context = Context(0, torch.device("cpu"), Path())
    state = State(context, 1, model, SimpleNamespace(), {}, Monitor())  # type: ignore[arg-type]
    losses = Losses(TERMS[name] for name in names)
    optimizers = Optimizers({"all": torch.optim.SGD(model.parameters(), lr=0.0)})
    state.batch = given[0]
    Step(state, losses, optimizers, contextlib.nullcontext).gradients(given)
    return state


@pytest.mark.parametrize("names", [("squares",), ("dice",), ("squares", "ridge"), ("squares", "dice", "ridge")])
def test_parts_of_a_step_give_the_loss_and_the_gradient_of_all_its_items(names: tuple[str, ...]) -> None:
    parts = batches()
    whole = {key: torch.cat([batch[key] for batch in parts]) for key in parts[0]}
    one, several = step(names, [whole]), step(names, parts)
    assert one.loss is not None
    assert several.loss is not None
    torch.testing.assert_close(several.loss, one.loss, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(several.model.weight.grad, one.model.weight.grad, rtol=1e-12, atol=1e-15)
    for name in names if len(names) > 1 else ():
        mean, other = (state.means[f"train/{name}"].mean() for state in (one, several))
        assert other == pytest.approx(mean, rel=1e-12)


def test_a_mean_of_batch_dice_would_be_another_number() -> None:
    """So that the test above cannot pass by treating sums as means."""
    parts, dice = batches(), Dice()
    model = Line()
    each = [dice(model(batch), batch, model) * size / sum(SIZES) for batch, size in zip(parts, SIZES, strict=True)]
    loss = step(("dice",), parts).loss
    assert loss is not None
    assert abs(float(loss.detach()) / 0.5 - float(torch.stack(each).detach().sum())) > 1e-3


@pytest.mark.parametrize("given", [None, 0.5, torch.zeros(3)], ids=["nothing", "a float", "a vector"])
def test_a_loss_that_is_no_scalar_tensor_is_named(given: Any) -> None:
    losses = Losses([Term("mine", 1.0, lambda outputs, batch, model: given, True, "mean")])
    with pytest.raises(PartError, match=r"losses\.mine must return a scalar tensor"):
        losses.of_batch({}, {}, torch.nn.Identity())


@pytest.mark.parametrize(
    ("combine", "message"), [("average", "must be one of mean, sums, once"), ("sums", "methods sums")]
)
def test_a_loss_that_cannot_combine_as_it_says_is_refused(combine: Any, message: str) -> None:
    loss: Any = SimpleNamespace(build=lambda data: squares, weight=1.0, on_validation=True, combine=lambda: combine)
    with pytest.raises(PartError, match=message):
        Losses.build({"mine": loss}, None)
