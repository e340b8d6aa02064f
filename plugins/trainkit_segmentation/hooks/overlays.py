"""Pictures of predictions over the image."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
from attrs.validators import ge

from trainkit import Context, Data, Hook, component
from trainkit_segmentation.data.kind import SegmentationData


@component
class Overlays(Hook):
    """Draws truth and prediction over the image in three planes of held-out cases, as often as ``[pictures]`` sets.

    Truth is filled, the prediction is a line; both in colours that stay apart for people who see fewer of them. With
    more than eight classes colours recur, and numbers tell classes apart. Planes pass through the largest areas of the
    truth, all classes counting alike, and have the file's true proportions and a scale bar. They are shown in the
    radiological view: the patient's front or head is up, the patient's right is on the left of the picture. Letters say
    so, if the file does. A plane's position is its distance from the origin in mm and its voxel along the file's axis
    i, j or k, counted from 0.

    Attributes:
        cases: Names of held-out cases. Not given: ``num_cases`` of them, as ``ranked_by`` says.
        num_cases: Number of cases if none is named.
        ranked_by: "mean": evenly spread by their mean Dice; 3 cases are the worst, the median and the best, 1 is the
            median. "class": the worst case of each class that is in the truth; at most ``num_cases``, of the classes
            with the lowest Dice. A class that fails in a few cases hardly shows in the mean of many classes.
        channel: Channel of the image that is shown, counted from 0.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("nibabel", "scipy")
    takes_late_values: ClassVar[bool] = True

    cases: tuple[str, ...] = ()
    num_cases: int = attrs.field(default=3, validator=ge(1))
    ranked_by: Literal["mean", "class"] = "mean"
    channel: int = attrs.field(default=0, validator=ge(0))

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_segmentation.hooks.overlays_live import LiveOverlays

        return LiveOverlays(self.cases, self.num_cases, self.channel, self.ranked_by)
