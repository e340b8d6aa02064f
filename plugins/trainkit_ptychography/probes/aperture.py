"""A probe formed by a round aperture and an aberrated lens."""

from __future__ import annotations

from collections.abc import Iterable
from math import radians
from typing import TYPE_CHECKING

import attrs

from trainkit import DataError, Problem, component, random_seed
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction

_MODE_SEED = 0xA9E7


@component
class Aperture(Probe):
    """A round aperture and a lens with aberrations to third order; for electrons, and for any known wavelength.

    The aberration function is χ = 2π/λ · Σ αⁿ⁺¹/(n+1) · C_nm cos(m(φ − φ_nm)), the wave exp(−iχ) inside the aperture;
    φ goes from the column axis (right) towards the row axis (down). Source: Krivanek, Dellby, Lupini, Ultramicroscopy
    78 (1999) 1. A partly coherent source, or vibrations, are taken up by more than one mode.

    Attributes:
        semiangle_mrad: Half opening angle of the aperture. Left out: what the data says.
        defocus_angstrom: Underfocus, −C10. Left out: what the data says, else 0.
        C12_angstrom: Twofold astigmatism, with its direction ``phi12_deg``.
        phi12_deg: See C12.
        C21_angstrom: Coma, with its direction ``phi21_deg``.
        phi21_deg: See C21.
        C23_angstrom: Threefold astigmatism, with its direction ``phi23_deg``.
        phi23_deg: See C23.
        C30_angstrom: Spherical aberration.
        C32_angstrom: Star aberration, with its direction ``phi32_deg``.
        phi32_deg: See C32.
        C34_angstrom: Fourfold astigmatism, with its direction ``phi34_deg``.
        phi34_deg: See C34.
        modes: Number of mutually incoherent modes. Modes after the first begin as the first with random phases.
        powers: Share of the total power of each mode after the first. Left out: 0.02 each.
    """

    semiangle_mrad: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0.0))
    )
    defocus_angstrom: float | None = None
    C12_angstrom: float = 0.0
    phi12_deg: float = 0.0
    C21_angstrom: float = 0.0
    phi21_deg: float = 0.0
    C23_angstrom: float = 0.0
    phi23_deg: float = 0.0
    C30_angstrom: float = 0.0
    C32_angstrom: float = 0.0
    phi32_deg: float = 0.0
    C34_angstrom: float = 0.0
    phi34_deg: float = 0.0
    modes: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    powers: tuple[float, ...] | None = None

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the modes' powers."""
        if self.powers is not None and len(self.powers) != self.modes - 1:
            yield Problem(
                f"modes = {self.modes} needs {self.modes - 1} powers, of all modes after the first; got "
                f"{len(self.powers)}",
                "powers",
            )
        powers = self._powers()
        if any(not power > 0 for power in powers) or sum(powers) >= 1:
            yield Problem(
                f"powers of the modes after the first must be above 0 and leave something for it; they are {powers}",
                "modes" if self.powers is None else "powers",
            )

    def coefficients(self, defocus_angstrom: float) -> dict[str, tuple[float, float]]:
        """Return name -> (size in Å, direction in rad), as `trainkit_ptychography.physics.optics` takes aberrations."""
        return {
            "C10": (-defocus_angstrom, 0.0),
            "C12": (self.C12_angstrom, radians(self.phi12_deg)),
            "C21": (self.C21_angstrom, radians(self.phi21_deg)),
            "C23": (self.C23_angstrom, radians(self.phi23_deg)),
            "C30": (self.C30_angstrom, 0.0),
            "C32": (self.C32_angstrom, radians(self.phi32_deg)),
            "C34": (self.C34_angstrom, radians(self.phi34_deg)),
        }

    def build(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the modes."""
        import numpy as np

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
            raise DataError(f"{scan.source} does not tell all that an aperture probe needs; set {missing}")
        defocus = self.defocus_angstrom if self.defocus_angstrom is not None else scan.defocus_angstrom or 0.0
        first_YX = aperture_probe(
            data.detector_shape,
            scan.pixel_size_angstrom,
            scan.wavelength_angstrom,
            semiangle,
            self.coefficients(defocus),
        )
        powers = self._powers()
        generator = np.random.default_rng(random_seed(data.seed, _MODE_SEED))
        further = [
            np.sqrt(power) * first_YX * np.exp(2j * np.pi * generator.random(first_YX.shape)) for power in powers
        ]
        return np.stack([np.sqrt(1 - sum(powers)) * first_YX, *further])

    def _powers(self) -> tuple[float, ...]:
        return (0.02,) * (self.modes - 1) if self.powers is None else self.powers
