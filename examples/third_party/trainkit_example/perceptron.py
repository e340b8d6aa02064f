"""A model: what is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from trainkit import Model, component

from trainkit_example.line import Line

if TYPE_CHECKING:
    from torch import nn


@component
class Perceptron(Model):
    """Two layers with dropout between them.

    Attributes:
        width: Number of units between the layers.
        dropout: Probability with which a unit is left out in a step.
    """

    accepts = Line

    width: int = attrs.field(default=8, validator=attrs.validators.ge(1))
    dropout: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.lt(1)])

    def groups(self) -> dict[str, bool]:
        return {"hidden": True, "output": True}  # False: it trains only where a recipe sets its start_epoch

    def build(self, data: Any) -> nn.Module:
        from torch import nn

        class Network(nn.Sequential):
            def forward(self, batch):
                return {"y": super().forward(batch["x"])}

        return Network(nn.Linear(3, self.width), nn.Dropout(self.dropout), nn.Linear(self.width, 1))

    def parameter_groups(self, model: Any) -> dict[str, Any]:
        return {"hidden": model[0].parameters(), "output": model[2].parameters()}
