"""Pictures of predictions over the image."""

from __future__ import annotations

from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit import Context, Data, Hook, component
from trainkit_segmentation.data.kind import SegmentationData


@component
class Overlays(Hook):
    """Draws truth and prediction over the image in three planes of held-out cases, as often as ``[pictures]`` sets.

    The planes pass through the largest areas of the truth, in the usual radiological view: front or head up, the
    patient's left on the right.

    Attributes:
        cases: Names of held-out cases. Not given: the case with the most foreground.
        channel: Channel of the image that is shown, counted from 0.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("nibabel",)

    cases: tuple[str, ...] = ()
    channel: int = attrs.field(default=0, validator=ge(0))

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_segmentation.hooks.overlays_live import LiveOverlays

        return LiveOverlays(self.cases, self.channel)
