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
    """Cross-entropy in which voxels that are right already count less. Beside a Dice loss, for rare small structures.

    Attributes:
        gamma: How much less: (1 − p) ** gamma; 0 is cross-entropy.
        alpha: Share of the foreground in the balance with the background; 0 … 1. Not balanced if not given.
        include_background: Whether the background's voxels count, where classes exclude each other.

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
