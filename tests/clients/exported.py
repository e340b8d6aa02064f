"""A network for segmentation with random weights, in place of a checkpoint that is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from trainkit import BuiltModel, Inference
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.models.kind import SegmentationModel


@attrs.define
class Trained:
    """A network with random weights in place of a checkpoint."""

    model: SegmentationModel
    facts: SegmentationFacts
    name: str = "a checkpoint"
    inference: Inference = attrs.field(factory=SlidingWindow)

    @property
    def network(self) -> nn.Module:
        torch.manual_seed(3)
        return self.model.build(self.facts).eval()

    @property
    def weights(self) -> Mapping[str, Any]:
        return self.network.state_dict()

    @property
    def about(self) -> Mapping[str, Any]:
        return {**self.facts.to_json(), "run": "kidneys"}

    def settings(self) -> SegmentationModel:
        return self.model

    def build(self) -> BuiltModel:
        return BuiltModel(self.model, self.network, self.facts, self.inference)


def trained(model: SegmentationModel, size: tuple[int, int, int] = (16, 16, 8), exclusive: bool = True) -> Trained:
    return Trained(
        model,
        SegmentationFacts(
            channels=("T1", "T2"),
            classes=("cyst", "stone"),
            exclusive=exclusive,
            label_values={0: (), 3: ("cyst",), 7: ("stone",)},
            patch_size=size,
            preprocessing={"spacing_mm": [1.0, 1.0, 2.0], "normalization": "z_score"},
            num_training_cases=1,
            training_digest="",
        ),
    )


def image(batch: int, x: int, y: int, z: int) -> Tensor:
    return torch.randn((batch, 2, x, y, z), generator=torch.Generator().manual_seed(batch))
