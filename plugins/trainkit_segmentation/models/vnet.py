"""V-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge, lt

from trainkit import component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn


@component
class VNet(SegmentationModel):
    """MONAI's ``VNet``: 5³ convolutions and batch normalisation; the image must have 1, 2, 4, 8 or 16 channels.

    Groups: the way down is ``encoder``; the way up ``decoder``; the last transition ``head``.

    Attributes:
        dropout: Share of channels that are dropped in the coarser levels; 0 … 1.

    Source:
        Milletari, Navab, Ahmadi, "V-Net: fully convolutional neural networks …", 3DV (2016).
    """

    decoder: ClassVar[str] = r"up_tr\d+\."
    head: ClassVar[str] = r"out_tr\."

    dropout: float = attrs.field(default=0.5, validator=[ge(0), lt(1)])

    def divisors(self) -> Size:
        """Return 16: the volume is halved four times."""
        return (16, 16, 16)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.vnet import VNet as Network

        return Network(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            dropout_prob_down=self.dropout,
            dropout_prob_up=(self.dropout, self.dropout),
        )
