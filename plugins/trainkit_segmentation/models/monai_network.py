"""Any network of MONAI, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import Problem, argument_problems, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.monai_source import networks, refusal
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe

_ELSEWHERE = dict.fromkeys(
    ("in_channels", "out_channels", "num_classes", "img_size", "spatial_dims"), "comes from the data"
)


@component
class MONAINetwork(SegmentationModel):
    """Any network for segmentation in ``monai.networks.nets``, by name. For those that have no component of their own.

    Its channels, and ``img_size`` where it has that, come from the data. All parameters are in the group ``other``;
    give groups patterns in the recipe (``[groups.NAME] parameters = ["network.encoder.*"]``) to tell them apart. Where
    a network gives several scores while training, the first is ``logits``, and the loss sees all.

    Attributes:
        name: The class, as "BasicUNet".
        arguments: Its other arguments by name.
    """

    name: str
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def groups(self) -> Mapping[str, bool]:
        """Return the one group."""
        return {"other": True}

    def group_of(self, name: str) -> str:
        """Return "other"."""
        return "other"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what MONAI would not take: the class or an argument. MONAI is read, not imported."""
        if reason := refusal(self.name):
            yield Problem(reason, "name")
            return
        yield from argument_problems(self.name, self.arguments, networks()[self.name], _ELSEWHERE)
        yield from super().problems(recipe)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks import nets

        from_data = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "num_classes": out_channels,
            "img_size": patch_size,
            "spatial_dims": 3,
        }
        given = {key: value for key, value in from_data.items() if key in networks()[self.name]}
        network: nn.Module = getattr(nets, self.name)(**given, **self.arguments)
        return network
