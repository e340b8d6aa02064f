"""Soft Dice and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge

from trainkit import Combine, component
from trainkit_segmentation.losses.kind import SegmentationLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit_segmentation.losses.deep_supervision import HeadSums


@component
class DiceCE(SegmentationLoss):
    """One minus soft Dice, plus cross-entropy (binary for each class if classes overlap). The usual loss of the field.

    Attributes:
        dice_weight: Weight of the Dice term.
        ce_weight: Weight of the cross-entropy.
        include_background: Whether the background counts as a class in the Dice term, if classes exclude each other.
        batch_dice: Whether Dice is taken over all patches of a step together, not over each patch: steadier for small
            structures.

    Source:
        Isensee et al., Nature Methods 18 (2021) 203.
    """

    dice_weight: float = attrs.field(default=1.0, validator=ge(0.0))
    ce_weight: float = attrs.field(default=1.0, validator=ge(0.0))
    include_background: bool = False
    batch_dice: bool = False

    def combine(self) -> Combine:
        """Return "sums" for ``batch_dice``: the Dice of a whole batch is not the mean of the Dice of its parts."""
        return "sums" if self.batch_dice else "mean"

    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function."""
        from monai.losses.dice import DiceLoss

        from trainkit_segmentation.losses.cross_entropy import cross_entropy

        if exclusive:
            dice = DiceLoss(
                include_background=self.include_background, to_onehot_y=True, softmax=True, batch=self.batch_dice
            )
        else:
            dice = DiceLoss(sigmoid=True, batch=self.batch_dice)

        def loss(logits_BKXYZ: Tensor, label_BLXYZ: Tensor) -> Tensor:
            entropy = cross_entropy(logits_BKXYZ, label_BLXYZ, exclusive, "mean")
            total: Tensor = self.dice_weight * dice(logits_BKXYZ, label_BLXYZ) + self.ce_weight * entropy
            return total

        return loss

    def sums_of_one_head(self, exclusive: bool) -> HeadSums:
        """Make the same by sums: those of Dice, and as last column the sum and the number of cross-entropies."""
        import torch

        from trainkit_segmentation.losses.cross_entropy import cross_entropy
        from trainkit_segmentation.losses.deep_supervision import HeadSums
        from trainkit_segmentation.losses.dice_sums import dice_loss, dice_sums

        def sums(logits_BKXYZ: Tensor, label_BLXYZ: Tensor) -> Tensor:
            dice_2K = dice_sums(
                logits_BKXYZ, label_BLXYZ, exclusive=exclusive, include_background=self.include_background
            )
            wide = logits_BKXYZ.to(dice_2K.dtype)
            entropy = cross_entropy(wide, label_BLXYZ, exclusive, "sum")
            number = entropy.new_tensor(label_BLXYZ.numel())
            return torch.cat([dice_2K, torch.stack([entropy, number])[:, None]], dim=1)

        def value(sums_2S: Tensor) -> Tensor:
            entropy, number = sums_2S[:, -1]
            total: Tensor = self.dice_weight * dice_loss(sums_2S[:, :-1]) + self.ce_weight * entropy / number
            return total

        return HeadSums(sums, value, first=int(exclusive and self.include_background))
