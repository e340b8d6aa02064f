"""The plain U-Net of nnU-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import component
from trainkit_segmentation.models.planned_unet import PlannedUNet
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import nn


@component
class PlainUNet(PlannedUNet):
    """nnU-Net's ``PlainConvUNet``, its default network, to begin with the weights of an nnU-Net model.

    It is the class of nnU-Net itself, from the package dynamic-network-architectures, so that weights have the names
    that they have there. ``channels``, ``strides`` and ``kernel_sizes`` are those of the model's ``plans.json``, which
    has z first where this setting has x first. A model's checkpoints have the scores of all levels, which
    ``deep_supervision`` = levels - 2 keeps. To train without such weights, choose ``dynunet``, which needs no package
    but MONAI. Groups: the way down with the bottom is ``encoder``; the way up ``decoder``; the layers that give scores
    ``head``.

    Attributes:
        convolutions: Convolutions of each level, on the way down and up.

    Source:
        Isensee et al., "nnU-Net: a self-configuring method …", Nature Methods 18 (2021) 203.
    """

    requires: ClassVar[tuple[str, ...]] = ("dynamic_network_architectures", "safetensors")
    package: ClassVar[str] = "dynamic-network-architectures"
    decoder: ClassVar[str] = r"decoder\.(stages|transpconvs)\."
    head: ClassVar[str] = r"decoder\.seg_layers\."

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128, 256, 320, 320), validator=at_least_one)
    convolutions: int = attrs.field(default=2, validator=ge(1))

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from trainkit_segmentation.models.plain_unet_live import make

        return make(self, in_channels, out_channels)
