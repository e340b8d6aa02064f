"""Made-up cases, blobs in noise: for a first try without any files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from trainkit import component
from trainkit_segmentation.data.kind import SegmentationData

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList


@component
class SyntheticSegmentation(SegmentationData):
    """Noisy volumes of an ellipsoidal "organ" with a brighter "lesion" in it; nothing is downloaded.

    Attributes:
        num_cases: Number of cases.
        size: Voxels of a volume along x, y, z.
        seed: Another seed gives other cases.
    """

    num_cases: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    size: tuple[int, int, int] = attrs.field(
        default=(40, 40, 40), validator=attrs.validators.deep_iterable(attrs.validators.ge(8))
    )
    seed: int = 0

    def find(self) -> CaseList:
        """List the cases. Each is made when it is read."""
        from trainkit_segmentation.cases.synthesis import find

        return find(self)
