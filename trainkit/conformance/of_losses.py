"""Checks of what a loss builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainkit.conformance.randomness import untouched_randomness
from trainkit.conformance.trial import Trial, parts_of_batch
from trainkit.conformance.waits import step_without_values
from trainkit.contracts import Loss
from trainkit.randomness import generators_kept


def is_a_differentiable_scalar(loss: Loss, trial: Trial) -> None:
    """Check that the loss of a batch is a finite, real scalar, and that its gradient is finite."""
    function, outputs, batch, network = _tried(loss, trial)
    with untouched_randomness(f"{type(loss).__name__}", "compute it of outputs and batch alone"):
        value = function(outputs, batch, network)
    given = (
        f"{type(value).__name__}"
        if not isinstance(value, torch.Tensor)
        else f"a tensor {tuple(value.shape)} of {value.dtype}"
    )
    assert isinstance(value, torch.Tensor) and value.ndim == 0 and value.is_floating_point(), (  # noqa: PT018
        f"the loss must be a scalar tensor of real numbers, with shape (); it is {given}"
    )
    assert torch.isfinite(value), f"the loss of a new network is {value.item()}"
    assert value.requires_grad, "the loss depends on no parameter; is something detached, or computed under no_grad?"
    leaves = [each for each in network.parameters() if each.requires_grad]
    grads = [each for each in torch.autograd.grad(value, leaves, allow_unused=True) if each is not None]
    assert grads, "the loss gives no parameter a gradient"
    assert all(torch.isfinite(each).all() for each in grads), "the gradient of the loss is not finite"


def combines_as_it_says(loss: Loss, trial: Trial) -> None:
    """Check that losses of unequal parts of a batch combine to that of the whole one, as ``combine`` says."""
    function, outputs, batch, network = _tried(loss, trial)
    items = len(batch["index"])
    if items < 2:
        return
    sizes = (1, items - 1) if items > 2 else (1, 1)
    with torch.no_grad():
        whole = function(outputs, batch, network)
        parts = list(zip(parts_of_batch(outputs, sizes), parts_of_batch(batch, sizes), strict=True))
        how = loss.combine()
        if how == "sums":
            assert hasattr(function, "sums") and hasattr(function, "value"), (  # noqa: PT018
                'combine() is "sums", so what build returns needs the methods sums and value'
            )
            sums = [function.sums(some, some_batch, network) for some, some_batch in parts]
            shapes = {tuple(each.shape) for each in sums}
            assert len(shapes) == 1, (
                f"sums returns tensors of the shapes {sorted(shapes)}; it must be the same for all parts"
            )
            combined = function.value(torch.stack(sums).sum(0))
            said = "value(sums of one part + sums of the other)"
        elif how == "mean":
            values = [function(some, some_batch, network) for some, some_batch in parts]
            combined = (
                sum((value * size for value, size in zip(values, sizes, strict=True)), start=torch.zeros(())) / items
            )
            said = "the mean over the items of both parts"
        else:
            combined = function(*parts[0], network)
            said = "the loss of a part, which must not depend on the items,"
    assert torch.allclose(combined.double(), whole.double(), rtol=1e-3, atol=1e-6), (
        f'combine() is "{how}", but {said} is {combined.item():.6g} for parts of {sizes[0]} and {sizes[1]} items, and '
        f"that of the whole batch is {whole.item():.6g}; accumulated batches, shards and processes would differ"
    )


def computes_without_waiting(loss: Loss, trial: Trial) -> None:
    """Check that a step with it needs no values of tensors, for which a GPU would have to wait."""
    step_without_values(trial.network(), trial.batches()[0], loss.build(trial.live_data()))


def _tried(loss: Loss, trial: Trial) -> tuple[Any, Mapping[str, Any], Mapping[str, Any], torch.nn.Module]:
    """Return what the loss builds, and outputs of a network for a batch."""
    network, batch = trial.network(), trial.batches()[0]
    with generators_kept():
        function = loss.build(trial.live_data())
        assert callable(function), f"build returns {type(function).__name__}, which cannot be called"
        return function, network(batch), batch, network
