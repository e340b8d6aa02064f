"""The far field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import component
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation, ExitWave

if TYPE_CHECKING:
    from torch import Tensor


@component
class FarField(DetectorPropagation):
    """The detector is so far away, or behind such a lens, that a pattern is the Fourier transform of the exit wave.

    This is the case if wavelength · distance is larger than the square of the illuminated width.
    """

    def object_pixel_angstrom(
        self, detector_pixel_um: float, num_pixels: int, wavelength_angstrom: float, detector_distance_m: float
    ) -> float:
        """Return λ · distance / (width of the detector)."""
        return wavelength_angstrom * detector_distance_m / (num_pixels * detector_pixel_um * 1e-6)

    def transfer(self, wave: ExitWave, stretched: Tensor | None = None) -> Tensor | None:
        """Return None."""
        return None
