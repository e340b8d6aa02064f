"""The Fresnel propagator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt, le, optional

from trainkit import component
from trainkit_ptychography.propagators.kind import LivePropagator, Propagator, WaveGeometry

if TYPE_CHECKING:
    from torch import Tensor


@component
class Fresnel(Propagator):
    """Free space between slices, in Fresnel's approximation: for electrons, whose angles are small.

    The wave's Fourier transform is multiplied by exp(−iπλz k²), which takes no power from it. The phase error at an
    angle α is about π z α⁴ / 4λ: at 100 mrad and 80 keV it is 0.02 rad for slices of 10 Å.

    Source: Kirkland, "Advanced Computing in Electron Microscopy" (2020), chapter 6.

    Attributes:
        band_limit: Share of the highest frequency, 0 … 1, beyond which (in a circle) the wave is set to 0 after each
            slice. With 2/3, a slice scatters nothing beyond the edge of the grid, which would return at the other side
            as if it had been scattered less. Then waves cannot be propagated backwards, and some are kept. None: all
            of the wave stays.
    """

    band_limit: float | None = attrs.field(default=None, validator=optional([gt(0.0), le(1.0)]))

    def takes_no_power(self) -> bool:
        """Return whether the band is not limited."""
        return self.band_limit is None

    def build(self, geometry: WaveGeometry) -> LivePropagator:
        """Make the propagator."""
        from trainkit_ptychography.physics.propagation import fresnel_kernel, within_band

        limit = self.band_limit

        def propagator(distance_S: Tensor) -> Tensor:
            kernel_SYX = fresnel_kernel(
                geometry.shape, geometry.pixel_size_angstrom, geometry.wavelength_angstrom, distance_S
            )
            return kernel_SYX if limit is None else kernel_SYX * within_band(geometry.shape, limit, distance_S)

        return propagator
