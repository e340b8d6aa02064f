"""Pixels that begin with what a direct method makes of the patterns.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from trainkit_ptychography.direct.geometry import DirectGeometry, find_geometry
from trainkit_ptychography.direct.start import DirectStart, start
from trainkit_ptychography.objects.pixels_live import PixelObject

if TYPE_CHECKING:
    from trainkit_ptychography.direct.kind import DirectMethod
    from trainkit_ptychography.objects.kind import ObjectGeometry


class DirectObject(PixelObject):
    """A `LiveObject` of pixels.

    Attributes:
        start: What it begins with.
    """

    start: DirectStart

    def __init__(self, geometry: ObjectGeometry, absorbs: bool, method: DirectMethod) -> None:
        super().__init__(geometry, absorbs)
        assert geometry.seen is not None
        self._seen = geometry.seen()
        self.start = start(method, self._seen)
        with torch.no_grad():
            phase_SHW = self.pixels()["phase"]
            phase_SHW.copy_(torch.from_numpy(self.start.phase_HW / len(phase_SHW)))

    @cached_property
    def geometry_seen(self) -> DirectGeometry:
        """What the patterns show of the geometry (those of the first scan, if scans have probes of their own)."""
        return find_geometry(self._seen[0])
