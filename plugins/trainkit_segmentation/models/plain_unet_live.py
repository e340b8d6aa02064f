"""Makes nnU-Net's plain U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from trainkit_segmentation.models.planned_unet_live import FinestScores, arguments

if TYPE_CHECKING:
    from trainkit_segmentation.models.plain_unet import PlainUNet


class Network(FinestScores, PlainConvUNet):  # type: ignore[misc]  # the package has no types
    """The network of the package, with scores of the finest levels alone."""


def make(settings: PlainUNet, in_channels: int, out_channels: int) -> nn.Module:
    """Make the network as nnU-Net does, with its initial weights."""
    levels = len(settings.channels)
    network = Network(
        **arguments(settings, in_channels, out_channels),
        n_conv_per_stage=[settings.convolutions] * levels,
        n_conv_per_stage_decoder=[settings.convolutions] * (levels - 1),
    )
    network.apply(network.initialize)
    return network
