"""What nnU-Net's networks have in common: the arguments that make them, and which of their scores are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from trainkit_segmentation.models.planned_unet import PlannedUNet


class FinestScores:
    """Keeps the scores of the finest levels alone. It is the first base of a class, before a network of the package.

    Args:
        heads: Number of levels that give scores, the finest first.
        settings: Arguments of the network.
    """

    decoder: Any

    def __init__(self, heads: int, **settings: Any) -> None:
        super().__init__(deep_supervision=heads > 1, **settings)  # type: ignore[call-arg]  # of the network
        self._heads = heads
        layers = self.decoder.seg_layers  # one for each level, the coarsest first
        for place in range(len(layers) - heads):
            layers[place] = nn.Identity()  # a layer that nothing trains is none

    def forward(self, image_BCXYZ: Tensor) -> Tensor | list[Tensor]:
        """Return the scores of the finest level, or a list of those of several levels."""
        scores: Tensor | list[Tensor] = super().forward(image_BCXYZ)  # type: ignore[misc]  # of the network
        return scores if isinstance(scores, Tensor) else scores[: self._heads]


def arguments(settings: PlannedUNet, in_channels: int, out_channels: int) -> dict[str, Any]:
    """Return the arguments of a network as nnU-Net makes it: instance normalisation and leaky ReLU.

    Args:
        settings: The settings.
        in_channels: Channels of an image.
        out_channels: Scores of a voxel.
    """
    return {
        "heads": settings.deep_supervision + 1,
        "input_channels": in_channels,
        "n_stages": len(settings.channels),
        "features_per_stage": list(settings.channels),
        "conv_op": nn.Conv3d,
        "kernel_sizes": [list(each) for each in settings.level_kernel_sizes()],
        "strides": [list(each) for each in settings.level_strides()],
        "num_classes": out_channels,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
