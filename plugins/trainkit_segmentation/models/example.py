"""An example of what a network takes, and what its scores mean, for export.

Shapes: B = patches, C = channels, X, Y, Z = voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainkit import ExampleBatch

if TYPE_CHECKING:
    from trainkit_segmentation.data.facts import SegmentationFacts
    from trainkit_segmentation.models.kind import SegmentationModel

_AXES = ("x", "y", "z")


def example(settings: SegmentationModel, facts: SegmentationFacts) -> ExampleBatch:
    """Return two patches of noise.

    Args:
        settings: The network.
        facts: Facts of its training data.
    """
    flat = settings.flat_axis(facts.patch_size)
    free = [axis for axis in range(3) if axis != flat]
    image_BCXYZ = torch.randn((2, facts.num_channels, *facts.patch_size), generator=torch.Generator().manual_seed(0))
    return ExampleBatch(
        inputs={"image": image_BCXYZ},
        outputs=("logits",),
        sizes={"image": {2 + axis: _AXES[axis] for axis in free}},
        multiples={_AXES[axis]: settings.divisors()[axis] for axis in free},
        meaning={
            "image": "patches (batch, channel, x, y, z) on the grid, and normalised, as `preprocessing` says",
            "logits": "scores (batch, score, x, y, z)",
            "scores": [*(["background"] if facts.exclusive else []), *facts.classes],
            "activation": "softmax over the scores" if facts.exclusive else "sigmoid of each score",
        },
    )
