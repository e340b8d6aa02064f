"""Gradient steps that are scaled by the curvature of the loss: the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, optim

from trainkit.curvature import curvature_of, touched_of


class ScaledStepsOptimizer(optim.Optimizer):
    """Moves each parameter by −lr · gradient / (curvature + damping · largest curvature).

    Args:
        groups: One dict for each parameter group.
        lr: Share of the Newton step.
        damping: Share of a parameter's largest curvature that is added to its curvature.
        momentum: Fraction of the previous step that is added to the next one.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, damping: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "damping": damping, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.numel():
                    continue
                touched = None if group["momentum"] else touched_of(parameter)
                if touched is not None:
                    divisor, values = _damped(touched.curvature(), group["damping"]), touched.cut(parameter)
                    _move(values, group["lr"], touched.cut(parameter.grad), divisor)
                    touched.put(values, parameter)
                    continue
                divisor = _damped(curvature_of(parameter), group["damping"])
                if not group["momentum"]:
                    _move(parameter, group["lr"], parameter.grad, divisor)
                    continue
                state = self.state[parameter]
                if "momentum_buffer" in state:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(parameter.grad / divisor)
                else:
                    state["momentum_buffer"] = parameter.grad / divisor
                _move(parameter, group["lr"], state["momentum_buffer"])


def _move(parameter: Tensor, lr: float | Tensor, gradient: Tensor, divisor: Tensor | None = None) -> None:
    """Move a parameter by −lr · gradient / divisor, with the same bits for a number and a tensor.

    Args:
        parameter: The parameter.
        lr: A tensor, if its value may change while a step is repeated.
        gradient: The gradient.
        divisor: Its memory is used. None: 1.
    """
    if divisor is not None:
        parameter.addcdiv_(
            gradient, divisor.div_(lr), value=-1
        )  # without a step of its own for a rate that is a tensor
    elif isinstance(lr, Tensor):
        parameter.addcmul_(gradient, lr, value=-1)
    else:
        parameter.add_(gradient, alpha=-lr)


def _damped(curvature: Tensor, damping: float) -> Tensor:
    """Return what gradients are divided by; infinite where nothing is measured at all."""
    largest = curvature.amax()
    return torch.add(curvature, largest.masked_fill(largest == 0, torch.inf), alpha=damping)
