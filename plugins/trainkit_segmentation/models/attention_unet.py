"""The attention U-Net."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import deep_iterable, ge, lt

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.unet_levels import level_strides, levels_divisors, levels_problems
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class AttentionUNet(SegmentationModel):
    """MONAI's ``AttentionUnet``: a U-Net whose skip connections are gated. For small structures in large volumes.

    Groups: the convolutions on the way down are ``encoder``; gates and the way up ``decoder``; the last one ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least two levels.
        strides: By how much each level but the last is coarsened; by 2 if not given.
        dropout: Share of features that are dropped; 0 … 1.

    Source:
        Oktay et al., "Attention U-Net: learning where to look for the pancreas", arXiv:1804.03999 (2018).
    """

    decoder: ClassVar[str] = r"model\.1\.(.*\.)?(attention|upconv|merge)\."
    head: ClassVar[str] = r"model\.2\."

    channels: tuple[int, ...] = attrs.field(default=(16, 32, 64, 128), validator=deep_iterable(ge(2)))
    strides: tuple[int, ...] | None = attrs.field(default=None, validator=at_least_one)
    dropout: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        yield from levels_problems(self.channels, self.strides)
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return the product of the strides."""
        return levels_divisors(self.channels, self.strides)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.attentionunet import AttentionUnet as Network

        return Network(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=self.channels,
            strides=level_strides(self.channels, self.strides),
            dropout=self.dropout,
        )
