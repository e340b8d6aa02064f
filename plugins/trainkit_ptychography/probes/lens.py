"""What probes have in common that a lens forms: its aberrations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import radians
from typing import TYPE_CHECKING, Self

import attrs

from trainkit import Problem, component
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Scan

_NAMES = ("C12", "C21", "C23", "C30", "C32", "C34", "C41", "C43", "C45", "C50", "C52", "C54", "C56")
_ALIASES: Mapping[str, str] = {
    "astigmatism_angstrom": "C12_angstrom",
    "astigmatism_angle_deg": "phi12_deg",
    "coma_angstrom": "C21_angstrom",
    "coma_angle_deg": "phi21_deg",
    "Cs_angstrom": "C30_angstrom",
    "C5_angstrom": "C50_angstrom",
}


@component
class Lens(Probe):
    """A probe that a lens forms, with aberrations to fifth order; for electrons, and for any known wavelength.

    The aberration function is χ = 2π/λ · Σ αⁿ⁺¹/(n+1) · C_nm cos(m(φ − φ_nm)), the wave exp(−iχ) inside the aperture;
    φ goes from the column axis (right) towards the row axis (down). These are the names and signs of abTEM, where
    azimuths start at the first axis of arrays; so for arrays that abTEM made, exchange rows and columns, or
    φ_nm → 90° − φ_nm. Source: Krivanek, Dellby, Lupini, Ultramicroscopy 78 (1999) 1.

    Attributes:
        defocus_angstrom: Underfocus, −C10. If left out, −C10_angstrom, else the data's value, else 0.
        C10_angstrom: Overfocus, instead of defocus_angstrom.
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
        C41_angstrom: Coma of fourth order, with its direction ``phi41_deg``.
        phi41_deg: See C41.
        C43_angstrom: Three-lobe aberration, with its direction ``phi43_deg``.
        phi43_deg: See C43.
        C45_angstrom: Fivefold astigmatism, with its direction ``phi45_deg``.
        phi45_deg: See C45.
        C50_angstrom: Spherical aberration of fifth order.
        C52_angstrom: Star aberration of fifth order, with its direction ``phi52_deg``.
        phi52_deg: See C52.
        C54_angstrom: Rosette aberration, with its direction ``phi54_deg``.
        phi54_deg: See C54.
        C56_angstrom: Sixfold astigmatism, with its direction ``phi56_deg``.
        phi56_deg: See C56.
        astigmatism_angstrom: Another name of C12_angstrom.
        astigmatism_angle_deg: Another name of phi12_deg.
        coma_angstrom: Another name of C21_angstrom.
        coma_angle_deg: Another name of phi21_deg.
        Cs_angstrom: Another name of C30_angstrom.
        C5_angstrom: Another name of C50_angstrom.
    """

    defocus_angstrom: float | None = None
    C10_angstrom: float | None = None
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
    C41_angstrom: float = 0.0
    phi41_deg: float = 0.0
    C43_angstrom: float = 0.0
    phi43_deg: float = 0.0
    C45_angstrom: float = 0.0
    phi45_deg: float = 0.0
    C50_angstrom: float = 0.0
    C52_angstrom: float = 0.0
    phi52_deg: float = 0.0
    C54_angstrom: float = 0.0
    phi54_deg: float = 0.0
    C56_angstrom: float = 0.0
    phi56_deg: float = 0.0
    astigmatism_angstrom: float | None = None
    astigmatism_angle_deg: float | None = None
    coma_angstrom: float | None = None
    coma_angle_deg: float | None = None
    Cs_angstrom: float | None = None
    C5_angstrom: float | None = None

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that no aberration is given under two names, and no direction without a size."""
        yield from super().problems(recipe)
        if self.defocus_angstrom is not None and self.C10_angstrom is not None:
            yield Problem("give defocus_angstrom or C10_angstrom (= −defocus), not both", "C10_angstrom")
        for alias, name in _ALIASES.items():
            if getattr(self, alias) is not None and getattr(self, name) != 0:
                yield Problem(f"is another name of {name}: give one of them", alias)
        for name, (size, direction) in self.coefficients(0.0).items():
            if direction and not size:
                yield Problem(f"has no effect, because {name}_angstrom is 0", f"phi{name[1:]}_deg", "warning")

    def told_defocus(self, scan: Scan) -> float:
        """Return the underfocus in Å: what these settings say, else the data, else 0."""
        if self.C10_angstrom is not None:
            return -self.C10_angstrom
        return self.defocus_angstrom if self.defocus_angstrom is not None else scan.defocus_angstrom or 0.0

    def with_defocus(self, defocus_angstrom: float) -> Self:
        """Return the same lens with another underfocus."""
        return attrs.evolve(self, defocus_angstrom=defocus_angstrom, C10_angstrom=None)  # type: ignore[misc]

    def coefficients(self, defocus_angstrom: float) -> dict[str, tuple[float, float]]:
        """Return name -> (size in Å, direction in rad), as `trainkit_ptychography.physics.optics` takes aberrations."""
        found = {"C10": (-defocus_angstrom, 0.0)}
        for name in _NAMES:
            direction = 0.0 if name.endswith("0") else radians(self._given(f"phi{name[1:]}_deg"))
            found[name] = (self._given(f"{name}_angstrom"), direction)
        return found

    def _given(self, name: str) -> float:
        """Return a number that is given under its own name or another one."""
        others = (getattr(self, alias) for alias, meant in _ALIASES.items() if meant == name)
        own: float = getattr(self, name)
        return next((other for other in others if other is not None), own)
