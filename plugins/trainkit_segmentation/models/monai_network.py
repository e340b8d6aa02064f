"""Any network of MONAI, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

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
    """Any network for segmentation in ``monai.networks.nets``, by name. For networks without a component of their own.

    Its channels, and ``img_size`` if it has that argument, come from the data. All parameters are in the group
    ``other``; to divide them, give groups patterns in the recipe (``[groups.NAME] parameters =
    ["network.encoder.*"]``). If a network gives several scores in training, the first is ``logits``, and all enter the
    loss.

    Attributes:
        name: Name of the class, for example "BasicUNet".
        arguments: Its other arguments by name.
    """

    steps_can_be_recorded: ClassVar[bool] = False  # some networks may not allow it

    name: str
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def groups(self) -> Mapping[str, bool]:
        """Return the one group."""
        return {"other": True}

    def group_of(self, name: str) -> str:
        """Return "other"."""
        return "other"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield problems with the class name or an argument. MONAI's source is read, not imported."""
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
