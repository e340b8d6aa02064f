"""A loss that is a module with a buffer: how often it was asked scales what it gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainkit import Loss, component


@component
class Remembering(Loss):
    def build(self, data: Any) -> nn.Module:
        return LiveRemembering()


class LiveRemembering(nn.Module):
    asked: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, outputs: Any, batch: Any, model: nn.Module) -> Tensor:
        self.asked += 1
        return (outputs["y"] - batch["y"]).square().mean() * self.asked
