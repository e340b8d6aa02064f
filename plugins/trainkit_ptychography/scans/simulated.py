"""A simulated scan of a few dozen atoms, with everything known: for trying things out and for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from trainkit import Problem, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording

_positive = attrs.validators.gt(0.0)


@component
class SimulatedDiffraction(DiffractionData):
    """A scan over randomly placed atoms with a defocused probe, wrong positions, and counting noise.

    It is made anew in each run, which takes a second; the same settings give the same scan. The truth is known, so the
    hook ``ptychography_truth`` can say how good a reconstruction is.

    Attributes:
        scan_shape: Rows and columns of scan points.
        step_angstrom: Distance between scan points.
        detector_size: Rows, and columns, of a pattern.
        pixel_size_angstrom: Size of an object pixel; the detector reaches to wavelength / (2 · pixel size).
        energy_kev: Energy of the electrons.
        semiangle_mrad: Half opening angle of the aperture.
        defocus_angstrom: Underfocus.
        defocus_drift_angstrom: By how much the defocus changes from the first pattern of a scan to the last, evenly.
        exposure_motion_angstrom: How far the beam moves along its row while a pattern is taken, as in a fly scan; the
            positions are those of the middle.
        further_defoci_angstrom: The same specimen is scanned once more with each of these, for probes "per_scan".
        further_tilts_mrad: Likewise with each of these directions of the beam instead of ``tilt_mrad``, for a specimen
            of several slices (tilt pairs). If both are given, there must be as many.
        further_offsets_angstrom: By how much each further scan was really taken elsewhere, (rows, columns), than its
            positions tell, as where the specimen moved in between. Without further defoci or tilts, the scans differ in
            this alone.
        scan_shifts_angstrom: By how much each scan is moved to make up for that, [[rows, columns], …] in the order of
            the scans; group ``scan_shifts`` (``model.scan_shifts``) trains what is left.
        position_error_angstrom: Standard deviation of the error of the given positions, along each axis.
        dose_per_square_angstrom: Electrons per Å².
        atom_spacing_angstrom: Least distance between atoms.
        slices: Number of slices of the specimen. With several, atoms form columns along the beam.
        grains: With several slices: 2: the upper half holds columns at other places than the lower half; 1: columns go
            through the whole specimen.
        thickness_angstrom: Thickness of a specimen of several slices.
        tilt_mrad: Direction of the beam through several slices (rows, columns): with depth, it moves towards larger
            rows and columns by the tangent of it.
        seed: Seed of atoms, position errors and noise; it is not the run's seed, so that runs can use the same data.
    """

    scan_shape: tuple[int, int] = attrs.field(
        default=(24, 24), validator=attrs.validators.deep_iterable(attrs.validators.ge(2))
    )
    step_angstrom: float = attrs.field(default=0.5, validator=_positive)
    detector_size: int = attrs.field(default=48, validator=attrs.validators.ge(8))
    pixel_size_angstrom: float = attrs.field(default=0.4, validator=_positive)
    energy_kev: float = attrs.field(default=80.0, validator=_positive)
    semiangle_mrad: float = attrs.field(default=25.0, validator=_positive)
    defocus_angstrom: float = 60.0
    defocus_drift_angstrom: float = 0.0
    exposure_motion_angstrom: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    further_defoci_angstrom: tuple[float, ...] = ()
    further_tilts_mrad: tuple[tuple[float, float], ...] = ()
    further_offsets_angstrom: tuple[tuple[float, float], ...] = ()
    scan_shifts_angstrom: tuple[tuple[float, float], ...] = ()
    position_error_angstrom: float = attrs.field(default=0.1, validator=attrs.validators.ge(0.0))
    dose_per_square_angstrom: float = attrs.field(default=1e5, validator=_positive)
    atom_spacing_angstrom: float = attrs.field(default=1.4, validator=_positive)
    slices: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    grains: int = attrs.field(default=2, validator=attrs.validators.in_((1, 2)))
    thickness_angstrom: float = attrs.field(default=100.0, validator=_positive)
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that patterns are not to be read from a file."""
        if self.patterns_on == "disk":
            yield Problem("simulated patterns are in no file", "patterns_on")
        num_defoci, num_tilts = len(self.further_defoci_angstrom), len(self.further_tilts_mrad)
        if num_defoci and num_tilts and num_defoci != num_tilts:
            yield Problem(
                f"are {num_tilts}, and further_defoci_angstrom are {num_defoci}: give as many of both, or one of them",
                "further_tilts_mrad",
            )
        num_offsets = len(self.further_offsets_angstrom)
        if num_offsets and num_offsets != (max(num_defoci, num_tilts) or num_offsets):
            yield Problem(
                f"are {num_offsets}, and there are {max(num_defoci, num_tilts)} further scans: give as many",
                "further_offsets_angstrom",
            )
        if num_tilts and self.slices == 1:
            yield Problem("have no effect on a single slice: raise data.slices", "further_tilts_mrad")

    def knows_truth(self) -> bool:
        """Return True: it is a simulation."""
        return True

    def read(self) -> Recording:
        """Simulate."""
        from trainkit_ptychography.scans.simulated_live import simulate

        return simulate(self)
