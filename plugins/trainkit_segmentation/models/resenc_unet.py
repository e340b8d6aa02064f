"""The residual encoder U-Net of nnU-Net."""

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
class ResEncUNet(SegmentationModel):
    """nnU-Net's ``ResidualEncoderUNet``: a deep residual encoder and a light decoder, planned as "ResEnc M", "L", "XL".

    It is the class of nnU-Net itself, from the package dynamic-network-architectures, so that weights have the names
    that they have there. MONAI has no such network: its ``DynUNet`` with residual blocks has as many in the decoder as
    in the encoder. Groups: the way down with the bottom is ``encoder``; the way up ``decoder``; the layers that give
    scores ``head``.

    Attributes:
        channels: Features of each level, the finest first; at least two levels.
        strides: Factor by which each level but the first is coarser than the one before, along each axis; 2 if not
            given.
        kernel_sizes: Size of the convolutions of each level along each axis; 3 if not given.
        blocks: Residual blocks of each level of the encoder. Not given: 1, 3, 4, and 6 of each further one.
        decoder_convolutions: Convolutions of each level of the decoder.
        deep_supervision: Number of coarser levels whose scores enter the loss too, in training.

    Source:
        Isensee et al., "nnU-Net revisited: a call for rigorous validation …", MICCAI (2024), arXiv:2404.09556.
    """

    requires: ClassVar[tuple[str, ...]] = ("dynamic_network_architectures", "safetensors")
    library: ClassVar[str] = "dynamic-network-architectures"
    decoder: ClassVar[str] = r"decoder\.(stages|transpconvs)\."
    head: ClassVar[str] = r"decoder\.seg_layers\."

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128, 256, 320, 320), validator=at_least_one)
    strides: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    kernel_sizes: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    blocks: tuple[int, ...] | None = attrs.field(default=None, validator=at_least_one)
    decoder_convolutions: int = attrs.field(default=1, validator=ge(1))
    deep_supervision: int = attrs.field(default=0, validator=ge(0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        levels = len(self.channels)
        if levels < 2:
            yield Problem(f"at least two levels are needed, got {levels}", "channels")
        for key, given, wanted in (
            ("strides", self.strides, levels - 1),
            ("kernel_sizes", self.kernel_sizes, levels),
            ("blocks", self.blocks, levels),
        ):
            if given is not None and len(given) != wanted:
                yield Problem(f"{levels} levels (channels) need {wanted}, got {len(given)}", key)
        if recipe.run.deterministic and recipe.run.device != "cpu":
            yield Problem(
                "averages over voxels between its levels, which has no deterministic form on CUDA, and "
                "run.deterministic is true: choose dynunet",
                severity="warning",
            )
        if self.deep_supervision > max(levels - 2, 0):
            yield Problem(
                f"a network of {levels} levels has {max(levels - 2, 0)} that can be supervised besides the finest",
                "deep_supervision",
            )
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return the product of the strides, along each axis."""
        x, y, z = (prod(along) for along in zip(*self.level_strides(), strict=True))
        return (x, y, z)

    def level_strides(self) -> tuple[Size, ...]:
        """Return the stride of each level; the first is 1."""
        between = ((2, 2, 2),) * (len(self.channels) - 1) if self.strides is None else self.strides
        return ((1, 1, 1), *between)

    def level_blocks(self) -> tuple[int, ...]:
        """Return the residual blocks of each level: those given, else nnU-Net's."""
        levels = len(self.channels)
        return (1, 3, 4, *(6,) * levels)[:levels] if self.blocks is None else self.blocks

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from trainkit_segmentation.models.resenc_unet_live import make

        return make(self, in_channels, out_channels)
