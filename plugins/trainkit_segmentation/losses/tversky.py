"""The Tversky loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge

from trainkit import component
from trainkit_segmentation.losses.kind import SegmentationLoss

if TYPE_CHECKING:
    from torch import Tensor


@component
class Tversky(SegmentationLoss):
    """Soft Dice in which false positives and false negatives have separate weights.

    For lesions that must not be missed, give ``false_negatives`` the larger weight. With weights of 0.5 it is the Dice
    loss.

    Attributes:
        false_positives: Weight of voxels that are found but not in the label.
        false_negatives: Weight of voxels that are in the label but not found.
        include_background: Whether the background counts as a class, if classes exclude each other.

    Source:
        Salehi, Erdogmus, Gholipour, "Tversky loss function for image segmentation …", MLMI (2017), eq. 3.
    """

    false_positives: float = attrs.field(default=0.3, validator=ge(0.0))
    false_negatives: float = attrs.field(default=0.7, validator=ge(0.0))
    include_background: bool = False

    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function."""
        from monai.losses.tversky import TverskyLoss

        term: Callable[[Tensor, Tensor], Tensor] = TverskyLoss(
            include_background=self.include_background or not exclusive,
            to_onehot_y=exclusive,
            softmax=exclusive,
            sigmoid=not exclusive,
            alpha=self.false_positives,
            beta=self.false_negatives,
        )
        return term
