"""Gradient steps that are scaled by the curvature of the loss: the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, optim

from trainkit.curvature import curvature_of


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
                change = _scaled(parameter.grad, curvature_of(parameter), group["damping"])
                if group["momentum"]:
                    state = self.state[parameter]
                    if "momentum_buffer" in state:
                        change = state["momentum_buffer"].mul_(group["momentum"]).add_(change)
                    else:
                        state["momentum_buffer"] = change
                if isinstance(lr := group["lr"], Tensor):  # its value may change while a step is repeated
                    parameter.addcmul_(change, lr, value=-1)
                else:
                    parameter.add_(change, alpha=-lr)


def _scaled(gradient: Tensor, curvature: Tensor, damping: float) -> Tensor:
    """Return the Newton step; zero where nothing is measured at all."""
    largest = curvature.amax()
    added = (damping * largest).masked_fill_(largest == 0, torch.inf)
    return gradient / (curvature + added)
