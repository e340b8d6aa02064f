"""A probe formed by a round aperture and an aberrated lens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from trainkit import DataError, component
from trainkit_ptychography.probes.lens import Lens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class Aperture(Lens):
    """A round aperture and a lens.

    Attributes:
        semiangle_mrad: Half opening angle of the aperture. If left out, the data's value.
    """

    semiangle_mrad: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0.0))
    )

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the probe, of one mode."""
        from trainkit_ptychography.physics.optics import aperture_probe

        scan = data.scan
        semiangle = scan.semiangle_mrad if self.semiangle_mrad is None else self.semiangle_mrad
        known = {
            "model.probe.semiangle_mrad": semiangle,
            "data.pixel_size_angstrom": scan.pixel_size_angstrom,
            "data.energy_kev (or wavelength_angstrom)": scan.wavelength_angstrom,
        }
        if semiangle is None or scan.pixel_size_angstrom is None or scan.wavelength_angstrom is None:
            missing = ", ".join(name for name, value in known.items() if value is None)
            raise DataError(f"{scan.source} does not give all that an aperture probe needs; set {missing}")
        probe_YX = aperture_probe(
            data.detector_shape,
            scan.pixel_size_angstrom,
            scan.wavelength_angstrom,
            semiangle,
            self.coefficients(self.told_defocus(scan)),
        )
        return probe_YX[None]
