"""The Dice coefficient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.metrics.kind import SegmentationMetric

if TYPE_CHECKING:
    from trainkit import LiveMetric
    from trainkit_segmentation.data.kind_live import LiveSegmentation


@component
class Dice(SegmentationMetric):
    """Overlap of prediction and truth: ``dice``, the mean over classes, and ``dice_<class>``; 1 is perfect.

    It is twice the number of voxels in both over the sum of the numbers in each, for whole volumes on the voxel grid of
    a case's own files. A class that is in neither is left out of the mean, which is logged; a class that is in only one
    of them counts as 0.

    Source:
        Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945) 297.
    """

    name: ClassVar[str] = "dice"

    def build(self, data: LiveSegmentation) -> LiveMetric:
        """Make the accumulator."""
        from trainkit_segmentation.metrics.dice_live import LiveDice

        return LiveDice(data)
