"""Soft Dice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trainkit import Combine, component
from trainkit_segmentation.losses.kind import SegmentationLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit_segmentation.losses.deep_supervision import HeadSums


@component
class DiceLoss(SegmentationLoss):
    """One minus soft Dice, the mean over classes. Independent of the amount of background; noisier than Dice + CE.

    Attributes:
        include_background: Whether the background counts as a class, if classes exclude each other.
        batch_dice: Whether Dice is taken over all patches of a step together, not over each patch.
        squared: Whether the denominator is a sum of squares, as in V-Net.

    Source:
        Milletari, Navab, Ahmadi, "V-Net: fully convolutional neural networks …", 3DV (2016), eq. 1.
    """

    include_background: bool = False
    batch_dice: bool = False
    squared: bool = False

    def combine(self) -> Combine:
        """Return "sums" for ``batch_dice``: the Dice of a whole batch is not the mean of the Dice of its parts."""
        return "sums" if self.batch_dice else "mean"

    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function."""
        from monai.losses.dice import DiceLoss as Term

        term: Callable[[Tensor, Tensor], Tensor] = Term(
            include_background=self.include_background or not exclusive,
            to_onehot_y=exclusive,
            softmax=exclusive,
            sigmoid=not exclusive,
            squared_pred=self.squared,
            batch=self.batch_dice,
        )
        return term

    def sums_of_one_head(self, exclusive: bool) -> HeadSums:
        """Make the same by sums."""
        from functools import partial

        from trainkit_segmentation.losses.deep_supervision import HeadSums
        from trainkit_segmentation.losses.dice_sums import dice_loss, dice_sums

        sums = partial(dice_sums, exclusive=exclusive, include_background=self.include_background, squared=self.squared)
        return HeadSums(sums, dice_loss, first=int(exclusive and self.include_background))
