"""The object as an array of pixels: its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from trainkit import component
from trainkit_ptychography.objects.kind import Object, ObjectGeometry

if TYPE_CHECKING:
    from torch import nn


@component
class Pixels(Object):
    """One value per pixel for the phase, and one for the absorption: the default, and the fastest.

    Learning rates of about 1e-3 to 1e-2 (rad) suit both.

    Attributes:
        kind: "phase_and_amplitude", or "phase_only" for a specimen that absorbs nothing.
    """

    has_pixels: ClassVar[bool] = True

    kind: Literal["phase_and_amplitude", "phase_only"] = "phase_and_amplitude"

    def build(self, geometry: ObjectGeometry) -> nn.Module:
        """Make the pixels, all vacuum."""
        from trainkit_ptychography.objects.pixels_live import PixelObject

        return PixelObject(geometry, absorbs=self.kind == "phase_and_amplitude")
