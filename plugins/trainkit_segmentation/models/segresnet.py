"""SegResNet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import deep_iterable, ge, lt

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe

_GROUPS = 8  # number of groups of the group normalisation, MONAI's default


@component
class SegResNet(SegmentationModel):
    """MONAI's ``SegResNet``: a deep residual encoder and a light decoder. Strong on brain tumours.

    Groups: the way down is ``encoder``; the way up ``decoder``; the last convolution ``head``.

    Attributes:
        init_filters: Features of the finest level, doubled at each coarser one; a multiple of 8.
        blocks_down: Residual blocks of each level on the way down; one number for each level.
        blocks_up: Residual blocks of each level on the way up; one number fewer.
        dropout: Share of features that are dropped after the first convolution; 0 … 1.
        upsampling: "trilinear", or "transposed" for transposed convolutions, which are deterministic on CUDA.

    Source:
        Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", arXiv:1810.11654 (2018).
    """

    takes_planes: ClassVar[bool] = True
    decoder: ClassVar[str] = r"up_(layers|samples)\."
    head: ClassVar[str] = r"conv_final\."

    init_filters: int = attrs.field(default=16, validator=ge(1))
    blocks_down: tuple[int, ...] = attrs.field(default=(1, 2, 2, 4), validator=deep_iterable(ge(1)))
    blocks_up: tuple[int, ...] = attrs.field(default=(1, 1, 1), validator=deep_iterable(ge(1)))
    dropout: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])
    upsampling: Literal["trilinear", "transposed"] = "trilinear"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        if self.init_filters % _GROUPS:
            yield Problem(f"must be a multiple of {_GROUPS}, got {self.init_filters}", "init_filters")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            yield Problem(
                f"{len(self.blocks_down)} levels down need {len(self.blocks_down) - 1} up, got {len(self.blocks_up)}",
                "blocks_up",
            )
        if recipe.run.deterministic and recipe.run.device != "cpu" and self.upsampling == "trilinear":
            yield Problem(
                'has no deterministic form on CUDA, and run.deterministic is true; "transposed" has',
                "upsampling",
                "warning",
            )
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return 2 to the power of the number of times that the volume is halved."""
        whole = 2 ** (len(self.blocks_down) - 1)
        return (whole, whole, whole)

    def network(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network."""
        from monai.networks.nets.segresnet import SegResNet as Network

        return Network(
            spatial_dims=self.spatial_dims(patch_size),
            in_channels=in_channels,
            out_channels=out_channels,
            init_filters=self.init_filters,
            blocks_down=self.blocks_down,
            blocks_up=self.blocks_up,
            dropout_prob=self.dropout or None,
            norm=("GROUP", {"num_groups": _GROUPS}),
            upsample_mode="nontrainable" if self.upsampling == "trilinear" else "deconv",
        )
