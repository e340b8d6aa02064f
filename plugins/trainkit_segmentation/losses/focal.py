"""The focal loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, le, optional

from trainkit import component
from trainkit_segmentation.losses.kind import SegmentationLoss

if TYPE_CHECKING:
    from torch import Tensor


@component
class Focal(SegmentationLoss):
    """Cross-entropy in which correctly classified voxels count less. Use beside a Dice loss for rare structures.

    Attributes:
        gamma: Exponent of the weight (1 − p) ** gamma of a voxel; 0 gives cross-entropy.
        alpha: Weight of the foreground, 0 … 1; the background has weight 1 − alpha. Not given: no weights.
        include_background: Whether the background's voxels count, if classes exclude each other.

    Source:
        Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense object detection", ICCV (2017), eq. 4.
    """

    gamma: float = attrs.field(default=2.0, validator=ge(0.0))
    alpha: float | None = attrs.field(default=None, validator=optional([ge(0.0), le(1.0)]))
    include_background: bool = True

    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function."""
        from monai.losses.focal_loss import FocalLoss

        term: Callable[[Tensor, Tensor], Tensor] = FocalLoss(
            include_background=self.include_background or not exclusive,
            to_onehot_y=exclusive,
            use_softmax=exclusive,
            gamma=self.gamma,
            alpha=self.alpha,
        )
        return term
