"""What all figures of merit of labelled volumes have in common."""

from __future__ import annotations

from typing import ClassVar

from trainkit import Data, Metric, component
from trainkit_segmentation.data.kind import SegmentationData


@component
class SegmentationMetric(Metric):
    """For each class, the mean over the cases of a split; and the mean over classes.

    Each case counts as a whole, on the voxel grid of its own files. A class that is in neither truth nor prediction of
    a case is left out of the class's mean, and one that is in none of the cases out of the mean over classes; the run
    says so.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    name: ClassVar[str]
    """Of the mean over classes."""

    def names(self) -> tuple[str, ...]:
        """Return the mean's name, and the pattern of those of the classes, which only the data knows."""
        return (self.name, f"{self.name}_*")
