"""The U-Net with residual units."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge

from trainkit import component
from trainkit_segmentation.models.unet_levels import LevelledUNet
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn


@component
class UNet(LevelledUNet):
    """MONAI's ``UNet``, with residual units. Small and quick; a good first choice.

    Groups: the way down with the bottom is ``encoder``; the way up ``decoder``; its last level, which gives the scores,
    ``head``.

    Attributes:
        num_res_units: Convolutions in each residual unit; 0: plain convolutions.
        norm: Normalisation after each convolution.

    Source:
        Kerfoot et al., "Left-ventricle quantification using residual U-Net", STACOM (2018).
    """

    takes_planes: ClassVar[bool] = True
    decoder: ClassVar[str] = r"model(\.1\.submodule)+\.2\."
    head: ClassVar[str] = r"model\.2\."

    num_res_units: int = attrs.field(default=2, validator=ge(0))
    norm: Literal["instance", "batch"] = "instance"

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.unet import UNet as Network

        return Network(
            spatial_dims=self.spatial_dims(patch_size),
            in_channels=in_channels,
            out_channels=out_channels,
            channels=self.channels,
            strides=self.level_strides(),
            num_res_units=self.num_res_units,
            norm=self.norm,
            dropout=self.dropout,
        )
