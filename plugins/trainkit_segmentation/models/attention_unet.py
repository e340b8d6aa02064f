"""The attention U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import deep_iterable, ge

from trainkit import component
from trainkit_segmentation.models.unet_levels import LevelledUNet
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn


@component
class AttentionUNet(LevelledUNet):
    """MONAI's ``AttentionUnet``: a U-Net whose skip connections are gated. For small structures in large volumes.

    Groups: the convolutions on the way down are ``encoder``; gates and the way up ``decoder``; the last one ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least two levels, with at least 2 features each.

    Source:
        Oktay et al., "Attention U-Net: learning where to look for the pancreas", arXiv:1804.03999 (2018).
    """

    takes_planes: ClassVar[bool] = True
    decoder: ClassVar[str] = r"model\.1\.(.*\.)?(attention|upconv|merge)\."
    head: ClassVar[str] = r"model\.2\."

    channels: tuple[int, ...] = attrs.field(default=(16, 32, 64, 128), validator=deep_iterable(ge(2)))

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.attentionunet import AttentionUnet as Network

        return Network(
            spatial_dims=self.spatial_dims(patch_size),
            in_channels=in_channels,
            out_channels=out_channels,
            channels=self.channels,
            strides=self.level_strides(),
            dropout=self.dropout,
        )
