"""Any network of MONAI, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import Problem, component, did_you_mean
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.monai_source import networks, refusal
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from trainkit.recipe.root import Recipe

_FROM_DATA = ("in_channels", "out_channels", "num_classes", "img_size", "spatial_dims")


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
        known = networks()[self.name].arguments
        for key in self.arguments:
            if key not in known:
                yield Problem(f'{self.name} has no argument "{key}"; {did_you_mean(key, known)}', f"arguments.{key}")
            elif key in _FROM_DATA:
                yield Problem(f'"{key}" comes from the data; leave it out', f"arguments.{key}")
        for key, required in known.items():
            if required and key not in self.arguments and key not in _FROM_DATA:
                yield Problem(f'{self.name} needs the argument "{key}"', "arguments")
        yield from super().problems(recipe)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from importlib import import_module

        found = networks()[self.name]
        from_data = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "num_classes": out_channels,
            "img_size": patch_size,
            "spatial_dims": 3,
        }
        given = {key: value for key, value in from_data.items() if key in found.arguments}
        network: nn.Module = getattr(import_module(found.module), self.name)(**given, **self.arguments)
        return network
