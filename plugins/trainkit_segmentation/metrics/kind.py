"""The kind of metrics of labelled volumes."""

from __future__ import annotations

from typing import ClassVar

from trainkit import Data, Metric, component
from trainkit_segmentation.data.kind import SegmentationData


@component
class SegmentationMetric(Metric):
    """The mean over the cases of a split for each class, and the mean over classes.

    Whole volumes are compared on the voxel grid of a case's own files. A case in which neither truth nor prediction has
    a class is left out of the mean of that class. A class that is in the truth of no case has no value and is left out
    of the mean over classes; if there is none left, there is no value at all. What is left out is logged. Ignored
    voxels count as if neither had them; the edge of what counts is no surface.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    may_be_missing: ClassVar[bool] = True

    name: ClassVar[str]
    """Name of the mean over classes."""

    def names(self) -> tuple[str, ...]:
        """Return the name of the mean, and the pattern of the names for classes, which only the data knows."""
        return (self.name, f"{self.name}_*")
