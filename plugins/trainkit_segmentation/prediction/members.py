"""The networks that predict together: what they have in common, and their outputs for a window.

Shapes: B = windows, C = channels, K = scores, X, Y, Z = voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from trainkit import CheckpointError, Member
from trainkit_segmentation.data.facts import SegmentationFacts

_AXES = {"x": 2, "y": 3, "z": 4}


def common_facts(members: Sequence[Member]) -> SegmentationFacts:
    """Return the facts of the data that networks were trained on.

    Raises:
        CheckpointError: They differ in something that matters to a prediction.
    """
    facts: SegmentationFacts = members[0].data
    for other in members[1:]:
        for what, one, two in _compared(facts, other.data):
            if one != two:
                raise CheckpointError(
                    f"{members[0].name} and {other.name} cannot predict together: their data differ in {what}: {one} "
                    f"and {two}"
                )
    return facts


def _compared(one: SegmentationFacts, two: SegmentationFacts) -> list[tuple[str, Any, Any]]:
    return [
        ("the channels", list(one.channels), list(two.channels)),
        ("the classes", list(one.classes), list(two.classes)),
        ("whether classes exclude each other", one.exclusive, two.exclusive),
        ("the label values", dict(one.label_values), dict(two.label_values)),
    ]


@attrs.frozen
class Scores:
    """The mean output of networks for windows, mirrored or not.

    Attributes:
        networks: Each from an image (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        flips: The axes along which windows are mirrored.
        exclusive: Whether classes exclude each other.
        combine: What is averaged.
    """

    networks: tuple[Callable[[Tensor], Tensor], ...]
    flips: tuple[str, ...]
    exclusive: bool
    combine: Literal["logits", "probabilities"]

    def __call__(self, image_BCXYZ: Tensor) -> Tensor:
        """Return the mean logits or probabilities (B, K, X, Y, Z), float32."""
        mean: Tensor | None = None
        ways = [
            [_AXES[axis] for axis in chosen]
            for number in range(len(self.flips) + 1)
            for chosen in itertools.combinations(self.flips, number)
        ]
        for dims in ways:
            turned = image_BCXYZ.flip(dims) if dims else image_BCXYZ
            for network in self.networks:
                scores = network(turned).float()
                if self.combine == "probabilities":
                    scores = probabilities_of(scores, self.exclusive)
                scores = scores.flip(dims) if dims else scores
                mean = scores if mean is None else mean + scores
        assert mean is not None
        return mean / (len(ways) * len(self.networks))


def probabilities_of(logits: Tensor, exclusive: bool) -> Tensor:
    """Return the probabilities that logits (B, K, …) stand for."""
    return torch.softmax(logits, 1) if exclusive else torch.sigmoid(logits)
