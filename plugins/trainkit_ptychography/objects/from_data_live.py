"""Pixels that begin with what a direct method makes of the patterns.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainkit_ptychography.direct.start import start
from trainkit_ptychography.objects.pixels_live import PixelObject

if TYPE_CHECKING:
    from trainkit_ptychography.direct.kind import DirectMethod
    from trainkit_ptychography.objects.kind import ObjectGeometry


class DirectObject(PixelObject):
    """A `LiveObject` of pixels.

    Attributes:
        start: What it begins with.
    """

    def __init__(self, geometry: ObjectGeometry, absorbs: bool, method: DirectMethod) -> None:
        super().__init__(geometry, absorbs)
        assert geometry.seen is not None
        self.start = start(method, geometry.seen())
        with torch.no_grad():
            phase_SHW = self.pixels()["phase"]
            phase_SHW.copy_(torch.from_numpy(self.start.phase_HW / len(phase_SHW)))
