"""Swin UNETR."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class SwinUNETR(SegmentationModel):
    """MONAI's ``SwinUNETR``: a windowed transformer as encoder. Published pretrained encoders fit ([initial_weights]).

    Groups: transformer and the layers that read it are ``encoder``; the way up ``decoder``; the last convolution
    ``head``.

    Attributes:
        feature_size: Features of the finest level; a multiple of 12.
        depths: Transformer layers of each of the four stages.
        num_heads: Attention heads of each of the four stages.
        recompute: Whether the encoder's layers are computed again in the backward pass, to save memory.

    Source:
        Hatamizadeh et al., "Swin UNETR: Swin transformers for semantic segmentation of brain tumors", BrainLes (2021).
    """

    requires: ClassVar[tuple[str, ...]] = ("monai", "safetensors", "einops")
    steps_can_be_recorded: ClassVar[bool] = False  # each step brings numbers from the host
    takes_planes: ClassVar[bool] = True
    decoder: ClassVar[str] = r"decoder\d+\."
    head: ClassVar[str] = r"out\."

    feature_size: int = attrs.field(default=24, validator=ge(1))
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    recompute: bool = False

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        if self.feature_size % 12:
            yield Problem(f"must be a multiple of 12, got {self.feature_size}", "feature_size")
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return 32: the volume is halved five times."""
        return (32, 32, 32)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.swin_unetr import SwinUNETR as Network

        return Network(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=self.feature_size,
            spatial_dims=self.spatial_dims(patch_size),
            depths=self.depths,
            num_heads=self.num_heads,
            use_checkpoint=self.recompute,
        )
