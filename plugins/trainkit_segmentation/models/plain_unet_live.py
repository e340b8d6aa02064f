"""Makes nnU-Net's plain U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from trainkit_segmentation.models.finest_scores import finest, remove_coarse_layers

if TYPE_CHECKING:
    from trainkit_segmentation.models.plain_unet import PlainUNet


class Network(PlainConvUNet):  # type: ignore[misc]  # the package has no types
    """The network of the package, with scores of the finest levels alone.

    Args:
        heads: Number of levels that give scores, the finest first.
        settings: Arguments of `PlainConvUNet`.
    """

    def __init__(self, heads: int, **settings: Any) -> None:
        super().__init__(deep_supervision=heads > 1, **settings)
        self._heads = heads
        remove_coarse_layers(self.decoder.seg_layers, heads)

    def forward(self, image_BCXYZ: Tensor) -> Tensor | list[Tensor]:
        """Return the scores of the finest level, or a list of those of several levels."""
        return finest(super().forward(image_BCXYZ), self._heads)


def make(settings: PlainUNet, in_channels: int, out_channels: int) -> nn.Module:
    """Make the network as nnU-Net does: instance normalisation, leaky ReLU, its initial weights."""
    levels = len(settings.channels)
    network = Network(
        heads=settings.deep_supervision + 1,
        input_channels=in_channels,
        n_stages=levels,
        features_per_stage=list(settings.channels),
        conv_op=nn.Conv3d,
        kernel_sizes=[list(each) for each in settings.level_kernel_sizes()],
        strides=[list(each) for each in settings.level_strides()],
        n_conv_per_stage=[settings.convolutions] * levels,
        num_classes=out_channels,
        n_conv_per_stage_decoder=[settings.convolutions] * (levels - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    network.apply(network.initialize)
    return network
