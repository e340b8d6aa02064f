"""The third party's network, wider and deeper: what a checkpoint of it does not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainkit import Model, component


class Network(nn.Sequential):
    """Takes the third party's batches."""

    def forward(self, batch: Any) -> Any:
        return {"y": super().forward(batch["x"])}


@component
class Wide(Model):
    """Other shapes under the same names."""

    dropout: float = 0.1

    def build(self, data: Any) -> nn.Module:
        return Network(nn.Linear(3, 9), nn.Dropout(self.dropout), nn.Linear(9, 1))


@component
class Deep(Model):
    """A layer more."""

    def build(self, data: Any) -> nn.Module:
        return Network(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1), nn.Linear(1, 1))


@component
class Complex(Model):
    """A layer, and a phase factor that is trained."""

    def build(self, data: Any) -> nn.Module:
        network = Network(nn.Linear(3, 1))
        network.phase = nn.Parameter(torch.ones(1, dtype=torch.complex64))
        return network


@component
class Deciding(Model):
    """A layer whose forward pass looks at a value."""

    def build(self, data: Any) -> nn.Module:
        class Looking(Network):
            def forward(self, batch: Any) -> Any:
                outputs = super().forward(batch)
                return outputs if outputs["y"].detach().sum().item() < 1e9 else {"y": outputs["y"] * 0}

        return Looking(nn.Linear(3, 8), nn.Linear(8, 1))
