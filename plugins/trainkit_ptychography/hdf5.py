"""Scans in HDF5 files of any layout: the recipe says which dataset is what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import Problem, component
from trainkit_ptychography.diffraction import DiffractionData

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit_ptychography.scan import Recording

_positive = attrs.validators.optional(attrs.validators.gt(0.0))


@component
class HDF5Diffraction(DiffractionData):
    """Patterns and positions out of an HDF5 file.

    Datasets are named by their full path in the file, as "entry/data". Links to other places, external storage and
    virtual datasets are refused: they would let a file read others on your machine.

    Attributes:
        path: The file.
        patterns: Dataset of the patterns: (points, rows, columns), or (scan rows, scan columns, rows, columns).
        values: Whether these are intensities, or amplitudes (their square roots).
        zero_frequency: Where the undiffracted beam is: "centre" for pixel (rows//2, columns//2), "corner" for [0, 0].
        positions: Dataset of the probe's positions, (row, column) for each pattern.
        positions_unit: Unit of the positions, nominal and true.
        pixel_size_angstrom: Size of an object pixel. Either this, or dk_per_angstrom, or none where positions are in
            pixels.
        dk_per_angstrom: Size of a detector pixel in 1/Å; an object pixel is then 1 / (rows · dk).
        energy_kev: Energy of electrons. Either this, or wavelength_angstrom, or none where nothing needs it.
        wavelength_angstrom: Wavelength, for X-rays or where it is known.
        semiangle_mrad: The aperture's half opening angle, for an aperture probe that gives none.
        defocus_angstrom: Underfocus, for an aperture probe that gives none.
        probe: Dataset of a guess of the probe: complex, (…, rows, columns), centred at (rows//2, columns//2).
        truth_phase: Dataset of the object's true phase in rad, if it is known: pixel [i, j] at position (i, j) pixels.
        truth_positions: Dataset of the true positions, if they are known.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py",)

    path: Path
    patterns: str
    positions: str
    values: Literal["intensity", "amplitude"] = "intensity"
    zero_frequency: Literal["centre", "corner"] = "centre"
    positions_unit: Literal["angstrom", "nm", "m", "pixels"] = "angstrom"
    pixel_size_angstrom: float | None = attrs.field(default=None, validator=_positive)
    dk_per_angstrom: float | None = attrs.field(default=None, validator=_positive)
    energy_kev: float | None = attrs.field(default=None, validator=_positive)
    wavelength_angstrom: float | None = attrs.field(default=None, validator=_positive)
    semiangle_mrad: float | None = attrs.field(default=None, validator=_positive)
    defocus_angstrom: float | None = None
    probe: str | None = None
    truth_phase: str | None = None
    truth_positions: str | None = None

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what is given twice, or not at all."""
        if self.pixel_size_angstrom is not None and self.dk_per_angstrom is not None:
            yield Problem("give pixel_size_angstrom or dk_per_angstrom, not both", "dk_per_angstrom")
        if self.pixel_size_angstrom is None and self.dk_per_angstrom is None and self.positions_unit != "pixels":
            yield Problem(
                f'positions in {self.positions_unit} need pixel_size_angstrom or dk_per_angstrom; or say "pixels"',
                "positions_unit",
            )
        if self.energy_kev is not None and self.wavelength_angstrom is not None:
            yield Problem("give energy_kev or wavelength_angstrom, not both", "wavelength_angstrom")
        if (self.truth_phase is None) != (self.truth_positions is None):
            yield Problem(
                "truth_phase and truth_positions are of use only together",
                "truth_phase" if self.truth_positions is None else "truth_positions",
            )

    def knows_truth(self) -> bool:
        """Return whether both truths are named."""
        return self.truth_phase is not None and self.truth_positions is not None

    def read(self) -> Recording:
        """Read the file."""
        from trainkit_ptychography.hdf5_file import read_scan

        return read_scan(self)
