"""The U-Net with residual units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge, lt

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.unet_levels import level_strides, levels_divisors, levels_problems
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class UNet(SegmentationModel):
    """MONAI's ``UNet``, with residual units. Small and quick; a good first choice.

    Groups: the way down with the bottom is ``encoder``; the way up ``decoder``; its last level, which gives the scores,
    ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least two levels.
        strides: By how much each level but the last is coarsened; by 2 if not given.
        num_res_units: Convolutions in each residual unit; 0: plain convolutions.
        norm: Normalisation after each convolution.
        dropout: Share of features that are dropped; 0 … 1.

    Source:
        Kerfoot et al., "Left-ventricle quantification using residual U-Net", STACOM (2018).
    """

    decoder: ClassVar[str] = r"model(\.1\.submodule)+\.2\."
    head: ClassVar[str] = r"model\.2\."

    channels: tuple[int, ...] = attrs.field(default=(16, 32, 64, 128), validator=at_least_one)
    strides: tuple[int, ...] | None = attrs.field(default=None, validator=at_least_one)
    num_res_units: int = attrs.field(default=2, validator=ge(0))
    norm: Literal["instance", "batch"] = "instance"
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
        from monai.networks.nets.unet import UNet as Network

        return Network(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=self.channels,
            strides=level_strides(self.channels, self.strides),
            num_res_units=self.num_res_units,
            norm=self.norm,
            dropout=self.dropout,
        )
