"""A probe whose amplitude is that of the mean pattern: its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class MeanPattern(Probe):
    """The root of the mean pattern, brought back to the specimen as if its phase were flat on the detector.

    For the near field (``data.detector_propagation``): the mean of patterns that move with the specimen shows the beam.
    Where the detector did not measure, and around it, the beam is taken to be as it is at the nearest pixel that did.
    In the far field it is a focused probe; ``aperture`` and ``vacuum`` know more there.

    Source: Marchesini et al., J. Appl. Cryst. 49 (2016) 1245 (the far field).
    """

    requires: ClassVar[tuple[str, ...]] = ("scipy",)

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the probe, of one mode."""
        from trainkit_ptychography.probes.mean_pattern_live import probe_of_mean_pattern

        return probe_of_mean_pattern(data)
