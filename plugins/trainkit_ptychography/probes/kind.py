"""The kind "probe": what illuminates the specimen, before anything is trained. Other packages add ways of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from trainkit import Component, component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class Probe(Component):
    """What illuminates the specimen, as it is known before the run."""

    entry_points: ClassVar[str] = "trainkit.ptychography.probes"

    @abstractmethod
    def build(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the modes, complex (M, Y, X), centred at pixel (Y//2, X//2); only their ratios matter.

        Raises:
            DataError: The data does not tell what is needed.
        """
