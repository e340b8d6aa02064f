"""What all figures of merit of labelled volumes have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from trainkit import Metric, Problem, component
from trainkit_segmentation.data.kind import SegmentationData

if TYPE_CHECKING:
    from trainkit import Recipe


@component
class SegmentationMetric(Metric):
    """For each class, the mean over the cases of a split; and the mean over classes.

    Each case counts as a whole, on the voxel grid of its own files. A class that is in neither truth nor prediction of
    a case is left out of the class's mean, and one that is in none of the cases out of the mean over classes; the run
    says so.
    """

    may_be_missing: ClassVar[bool] = True

    name: ClassVar[str]
    """Of the mean over classes."""

    def names(self) -> tuple[str, ...]:
        """Return the mean's name, and the pattern of those of the classes, which only the data knows."""
        return (self.name, f"{self.name}_*")

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        if not isinstance(recipe.data, SegmentationData):
            yield "it compares labelled volumes, which this data does not have"
