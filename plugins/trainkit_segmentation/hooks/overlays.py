"""Pictures of what a network finds, over the image."""

from __future__ import annotations

from typing import ClassVar

import attrs
from attrs.validators import ge

from trainkit import Context, Data, Hook, component
from trainkit_segmentation.data.kind import SegmentationData


@component
class Overlays(Hook):
    """Shows truth and prediction over the image in three planes, for held-out cases; when ``[pictures]`` says.

    The planes go through where most of the truth is, and lie as one is used to: front or head up, left on the right.

    Attributes:
        cases: Names of held-out cases; none: the one with most foreground.
        channel: Which channel of the image is shown.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("nibabel",)

    cases: tuple[str, ...] = ()
    channel: int = attrs.field(default=0, validator=ge(0))

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_segmentation.hooks.overlays_live import LiveOverlays

        return LiveOverlays(self.cases, self.channel)
