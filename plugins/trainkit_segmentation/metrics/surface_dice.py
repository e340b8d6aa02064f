"""The share of the surfaces that agree within a tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import component
from trainkit_segmentation.metrics.kind import SegmentationMetric

if TYPE_CHECKING:
    from trainkit import LiveMetric
    from trainkit_segmentation.data.kind_live import LiveSegmentation


@component
class SurfaceDice(SegmentationMetric):
    """Share of the surfaces that agree within a tolerance: ``surface_dice``, ``surface_dice_<class>``; 1 is perfect.

    It penalises errors in small structures less than Dice does, and reflects the effort of a correction by hand better.
    A class that is in neither truth nor prediction is left out; a class that is in only one of them counts as 0.

    Attributes:
        tolerance_mm: Distance up to which surfaces agree; about the difference between two raters.
        every_epochs: It is measured after every so many epochs, and after the last.

    Source:
        Nikolov et al., "Clinically applicable segmentation of head and neck anatomy …", JMIR 23 (2021) e26151.
    """

    requires: ClassVar[tuple[str, ...]] = ("scipy",)
    name: ClassVar[str] = "surface_dice"

    tolerance_mm: float = attrs.field(default=1.0, validator=ge(0.0))
    every_epochs: int = attrs.field(default=1, validator=ge(1))

    def is_measured_after(self, epochs: int) -> bool:
        """Return whether ``every_epochs`` is due."""
        return epochs % self.every_epochs == 0

    def build(self, data: LiveSegmentation) -> LiveMetric:
        """Make the accumulator."""
        from functools import partial

        from trainkit_segmentation.metrics.surface_metric_live import LiveSurfaceMetric
        from trainkit_segmentation.metrics.surfaces import surface_agreement

        measure = partial(surface_agreement, tolerance_mm=self.tolerance_mm)
        return LiveSurfaceMetric(self.name, measure, data, self.is_measured_after, self.name)
