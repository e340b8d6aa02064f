"""A network with BatchNorm and dropout, in two groups, for the toy's points: buffers and draws are state too."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clients.toy import Line
from trainkit import Model, component


@component
class Normed(Model):
    """An encoder of two stages, each of which has a part of the head."""

    accepts = Line

    def groups(self) -> dict[str, bool]:
        return {"encoder": True, "head": True}

    def build(self, data: Any) -> nn.Module:
        return Network()

    def parameter_groups(self, model: Any) -> dict[str, Any]:
        return {"encoder": model.encoder.parameters(), "head": model.head.parameters()}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        fine = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        coarse = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.encoder = nn.ModuleDict({"fine": fine, "coarse": coarse})
        self.head = nn.ModuleDict({"fine": nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 1)), "coarse": nn.Linear(6, 1)})

    def forward(self, batch: Any) -> dict[str, Tensor]:
        fine = self.encoder["fine"](batch["x"])
        return {"y": self.head["fine"](fine) + self.head["coarse"](self.encoder["coarse"](fine))}
