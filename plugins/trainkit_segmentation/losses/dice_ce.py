"""Soft Dice and cross-entropy."""

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
class DiceCE(SegmentationLoss):
    """One minus soft Dice, plus cross-entropy (binary for each class, where classes overlap). The field's usual loss.

    Attributes:
        dice_weight: Of the Dice term.
        ce_weight: Of the cross-entropy.
        include_background: Whether the background counts as a class in the Dice term, where classes exclude each other.
        batch_dice: Whether Dice is taken over the whole batch, not over each patch: steadier for small structures.

    Source:
        Isensee et al., Nature Methods 18 (2021) 203.
    """

    dice_weight: float = attrs.field(default=1.0, validator=ge(0.0))
    ce_weight: float = attrs.field(default=1.0, validator=ge(0.0))
    include_background: bool = False
    batch_dice: bool = False

    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function."""
        from monai.losses.dice import DiceLoss
        from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

        if exclusive:
            dice = DiceLoss(
                include_background=self.include_background, to_onehot_y=True, softmax=True, batch=self.batch_dice
            )
        else:
            dice = DiceLoss(sigmoid=True, batch=self.batch_dice)

        def loss(logits_BKXYZ: Tensor, label_BLXYZ: Tensor) -> Tensor:
            if exclusive:
                # torch's own cross-entropy has no deterministic form on CUDA for labels that are numbers.
                entropy = -log_softmax(logits_BKXYZ, dim=1).gather(1, label_BLXYZ.long()).mean()
            else:
                entropy = binary_cross_entropy_with_logits(logits_BKXYZ, label_BLXYZ)
            total: Tensor = self.dice_weight * dice(logits_BKXYZ, label_BLXYZ) + self.ce_weight * entropy
            return total

        return loss
