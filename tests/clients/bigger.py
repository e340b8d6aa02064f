"""The third party's network, wider: other shapes under the same names."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainkit import Model, component


@component
class Wide(Model):
    """Two layers with dropout between them."""

    dropout: float = 0.1

    def build(self, data: Any) -> nn.Module:
        class Network(nn.Sequential):
            def forward(self, batch: Any) -> Any:
                return {"y": super().forward(batch["x"])}

        return Network(nn.Linear(3, 9), nn.Dropout(self.dropout), nn.Linear(9, 1))


@component
class Deep(Model):
    """The third party's network with a layer more."""

    def build(self, data: Any) -> nn.Module:
        class Network(nn.Sequential):
            def forward(self, batch: Any) -> Any:
                return {"y": super().forward(batch["x"])}

        return Network(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1), nn.Linear(1, 1))
