"""The probe that came with the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import DataError, component
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class ProbeFromData(Probe):
    """The guess that the data file holds: for X-rays, whose optics are seldom a plain aperture."""

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the guess."""
        if data.scan.probe_MYX is None:
            raise DataError(
                f"{data.scan.source} gave no probe: say in [data] which array holds it (probe = …), or make one with "
                'probe = { use = "aperture", … }'
            )
        return data.scan.probe_MYX
