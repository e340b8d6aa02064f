"""The network of nnU-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.models.planned_unet import PlannedUNet
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn


@component
class DynUNet(PlannedUNet):
    """MONAI's ``DynUNet``, the network of nnU-Net: strides for each axis, and supervision at coarser levels.

    Choose it for anisotropic volumes, or if a larger network is affordable. Groups: the way down with the bottom is
    ``encoder``; the way up ``decoder``; the layers that give scores, including those of deep supervision, ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least three levels.
        residual: Whether each block has a residual connection.

    Source:
        Isensee et al., "nnU-Net: a self-configuring method …", Nature Methods 18 (2021) 203.
    """

    takes_planes: ClassVar[bool] = True
    fewest_levels: ClassVar[int] = 3
    decoder: ClassVar[str] = r"upsamples\."
    head: ClassVar[str] = r"(output_block|deep_supervision_heads)\."

    residual: bool = False

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.dynunet import DynUNet as Network

        flat = self.flat_axis(patch_size)
        kernels, strides = (
            [tuple(each for axis, each in enumerate(of_level) if axis != flat) for of_level in levels]
            for levels in (self.level_kernel_sizes(), self.level_strides())
        )
        return Network(
            spatial_dims=self.spatial_dims(patch_size),
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernels,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=self.channels,
            deep_supervision=self.deep_supervision > 0,
            deep_supr_num=max(self.deep_supervision, 1),
            res_block=self.residual,
        )
