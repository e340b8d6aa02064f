"""The Hausdorff distance without outliers."""

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
class HD95(SegmentationMetric):
    """Distance of the surfaces in mm: ``hd95``, the mean over classes, and ``hd95_<class>``; 0 is perfect.

    It is the larger of the 95th percentiles of the distances from each surface to the other. A class that is in neither
    truth nor prediction is left out; a class that is in only one of them counts as the diagonal of the volume, the
    largest possible distance. A large volume takes seconds.

    Attributes:
        every_epochs: The distance is measured after every so many epochs, and after the last.

    Source:
        Huttenlocher, Klanderman, Rucklidge, "Comparing images using the Hausdorff distance", PAMI 15 (1993) 850.
    """

    requires: ClassVar[tuple[str, ...]] = ("scipy",)
    name: ClassVar[str] = "hd95"

    every_epochs: int = attrs.field(default=1, validator=ge(1))

    def is_measured_after(self, epochs: int) -> bool:
        """Return whether ``every_epochs`` is due."""
        return epochs % self.every_epochs == 0

    def build(self, data: LiveSegmentation) -> LiveMetric:
        """Make the accumulator."""
        from trainkit_segmentation.metrics.surface_metric_live import LiveSurfaceMetric
        from trainkit_segmentation.metrics.surfaces import hausdorff_95

        return LiveSurfaceMetric(self.name, hausdorff_95, data, self.is_measured_after, "hd95_mm")
