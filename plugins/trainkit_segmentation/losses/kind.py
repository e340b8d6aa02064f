"""The kind of losses of labelled volumes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import attrs

from trainkit import Batch, Data, Loss, Outputs, component
from trainkit_segmentation.data.kind import SegmentationData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit_segmentation.data.kind_live import LiveSegmentation
    from trainkit_segmentation.losses.deep_supervision import HeadSums


def _some_above_zero(
    instance: object, attribute: attrs.Attribute[tuple[float, ...] | None], value: tuple[float, ...] | None
) -> None:
    if value is not None and (min(value, default=-1.0) < 0 or not 0 < sum(value) < math.inf):
        raise ValueError(f"{attribute.name} must be at least 0 each, and not all 0, got {list(value)}")


@component
class SegmentationLoss(Loss):
    """A loss between scores and labels. Softmax if classes exclude each other, else a sigmoid for each class.

    Attributes:
        deep_supervision_weights: Weights of ``logits``, ``logits_1``, … if the network gives several; 1, 1/2, 1/4, … if
            not given. They are scaled to a sum of 1.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("monai",)
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    deep_supervision_weights: tuple[float, ...] | None = attrs.field(default=None, validator=_some_above_zero)

    @abstractmethod
    def of_one_head(self, exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function (logits, label) -> scalar.

        Args:
            exclusive: Whether a voxel has at most one class. Then logits are (B, K + 1, X, Y, Z) and labels
                (B, 1, X, Y, Z) with values 0 … K; otherwise both are (B, K, X, Y, Z).
        """

    def sums_of_one_head(self, exclusive: bool) -> HeadSums:
        """Make the same loss by sums over patches; needed where ``combine`` returns "sums".

        Args:
            exclusive: See `of_one_head`.
        """
        raise NotImplementedError

    def build(self, data: LiveSegmentation) -> Callable[[Outputs, Batch, nn.Module], Tensor]:
        """Make the function; it is a `SummedLoss` where ``combine`` returns "sums"."""
        from trainkit_segmentation.losses.deep_supervision import SummedSupervisedLoss, SupervisedLoss

        of_one_head, weights = self.of_one_head(data.exclusive), self.deep_supervision_weights
        if self.combine() == "sums":
            return SummedSupervisedLoss(of_one_head, self.sums_of_one_head(data.exclusive), weights, data.exclusive)
        return SupervisedLoss(of_one_head, weights, data.exclusive)
