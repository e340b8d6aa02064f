"""UNETR."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge, lt

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class UNETR(SegmentationModel):
    """MONAI's ``UNETR``: a vision transformer as encoder. It only takes patches of the size that it was made for.

    Choose it for large data sets or pretrained encoders ([initial_weights]). Groups: transformer and the layers that
    read it are ``encoder``; the way up ``decoder``; the last convolution ``head``.

    Attributes:
        feature_size: Features of the finest level.
        hidden_size: Width of the transformer; a multiple of ``num_heads``.
        mlp_dim: Width of its feed-forward layers.
        num_heads: Its attention heads.
        dropout: Share of its features that are dropped; 0 … 1.

    Source:
        Hatamizadeh et al., "UNETR: transformers for 3D medical image segmentation", WACV (2022).
    """

    requires: ClassVar[tuple[str, ...]] = ("monai", "safetensors", "einops")
    decoder: ClassVar[str] = r"decoder\d+\."
    head: ClassVar[str] = r"out\."

    feature_size: int = attrs.field(default=16, validator=ge(1))
    hidden_size: int = attrs.field(default=768, validator=ge(1))
    mlp_dim: int = attrs.field(default=3072, validator=ge(1))
    num_heads: int = attrs.field(default=12, validator=ge(1))
    dropout: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        if self.hidden_size % self.num_heads:
            yield Problem(f"must be a multiple of num_heads = {self.num_heads}, got {self.hidden_size}", "hidden_size")
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return 16, the size of a token."""
        return (16, 16, 16)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets import unetr

        return unetr.UNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            img_size=patch_size,
            feature_size=self.feature_size,
            hidden_size=self.hidden_size,
            mlp_dim=self.mlp_dim,
            num_heads=self.num_heads,
            dropout_rate=self.dropout,
        )
