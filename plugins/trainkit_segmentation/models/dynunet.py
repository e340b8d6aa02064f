"""The network of nnU-Net."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class DynUNet(SegmentationModel):
    """MONAI's ``DynUNet``, the network of nnU-Net: strides for each axis, and supervision at coarser levels.

    Choose it for anisotropic volumes, or if a larger network is affordable. Groups: the way down with the bottom is
    ``encoder``; the way up ``decoder``; the layers that give scores, including those of deep supervision, ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least three levels.
        strides: Factor by which each level but the first is coarser than the one before, along each axis; 2 if not
            given. Use 1 along the axis of thick slices as long as they are thicker than the pixels of a slice.
        kernel_sizes: Size of the convolutions of each level along each axis; 3 if not given.
        deep_supervision: Number of coarser levels whose scores enter the loss too, in training.
        residual: Whether each block has a residual connection.

    Source:
        Isensee et al., "nnU-Net: a self-configuring method …", Nature Methods 18 (2021) 203.
    """

    takes_planes: ClassVar[bool] = True
    decoder: ClassVar[str] = r"upsamples\."
    head: ClassVar[str] = r"(output_block|deep_supervision_heads)\."

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128, 256, 320), validator=at_least_one)
    strides: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    kernel_sizes: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    deep_supervision: int = attrs.field(default=0, validator=ge(0))
    residual: bool = False

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        levels = len(self.channels)
        if levels < 3:
            yield Problem(f"at least three levels are needed, got {levels}", "channels")
        if self.strides is not None and len(self.strides) != levels - 1:
            yield Problem(
                f"{levels} levels (channels) have {levels - 1} strides between them, got {len(self.strides)}", "strides"
            )
        if self.kernel_sizes is not None and len(self.kernel_sizes) != levels:
            yield Problem(
                f"there are {levels} levels (channels), got {len(self.kernel_sizes)} kernel sizes", "kernel_sizes"
            )
        if self.deep_supervision > max(levels - 2, 0):
            yield Problem(
                f"a network of {levels} levels has {max(levels - 2, 0)} that can be supervised besides the finest",
                "deep_supervision",
            )
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return the product of the strides, along each axis."""
        x, y, z = (prod(along) for along in zip(*self._strides(), strict=True))
        return (x, y, z)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.dynunet import DynUNet as Network

        flat = self.flat_axis(patch_size)
        kernels, strides = (
            [tuple(each for axis, each in enumerate(of_level) if axis != flat) for of_level in levels]
            for levels in (self.kernel_sizes or ((3, 3, 3),) * len(self.channels), self._strides())
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

    def _strides(self) -> tuple[Size, ...]:
        between = ((2, 2, 2),) * (len(self.channels) - 1) if self.strides is None else self.strides
        return ((1, 1, 1), *between)
