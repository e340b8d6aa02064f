"""The residual encoder U-Net of nnU-Net."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import Problem, component
from trainkit_segmentation.models.planned_unet import PlannedUNet
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class ResEncUNet(PlannedUNet):
    """nnU-Net's ``ResidualEncoderUNet``: a deep residual encoder and a light decoder, planned as "ResEnc M", "L", "XL".

    It is the class of nnU-Net itself, from the package dynamic-network-architectures, so that weights have the names
    that they have there. MONAI has no such network: its ``DynUNet`` with residual blocks has as many in the decoder as
    in the encoder. Groups: the way down with the bottom is ``encoder``; the way up ``decoder``; the layers that give
    scores ``head``.

    Attributes:
        blocks: Residual blocks of each level of the encoder. Not given: 1, 3, 4, and 6 of each further one.
        decoder_convolutions: Convolutions of each level of the decoder.

    Source:
        Isensee et al., "nnU-Net revisited: a call for rigorous validation …", MICCAI (2024), arXiv:2404.09556.
    """

    requires: ClassVar[tuple[str, ...]] = ("dynamic_network_architectures", "safetensors")
    package: ClassVar[str] = "dynamic-network-architectures"
    decoder: ClassVar[str] = r"decoder\.(stages|transpconvs)\."
    head: ClassVar[str] = r"decoder\.seg_layers\."

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128, 256, 320, 320), validator=at_least_one)
    blocks: tuple[int, ...] | None = attrs.field(default=None, validator=at_least_one)
    decoder_convolutions: int = attrs.field(default=1, validator=ge(1))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        if self.blocks is not None and len(self.blocks) != (levels := len(self.channels)):
            yield Problem(f"there are {levels} levels (channels), got blocks for {len(self.blocks)}", "blocks")
        if recipe.run.deterministic and recipe.run.device != "cpu":
            yield Problem(
                "averages over voxels between its levels, which has no deterministic form on CUDA, and "
                "run.deterministic is true: choose dynunet",
                severity="warning",
            )
        yield from super().problems(recipe)

    def level_blocks(self) -> tuple[int, ...]:
        """Return the residual blocks of each level: those given, else nnU-Net's."""
        levels = len(self.channels)
        return (1, 3, 4, *(6,) * levels)[:levels] if self.blocks is None else self.blocks

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from trainkit_segmentation.models.resenc_unet_live import make

        return make(self, in_channels, out_channels)
