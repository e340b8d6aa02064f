"""A thick crystal that is simulated within a test: columns of atoms under a beam of 200 keV, seen in six slices."""

from __future__ import annotations

from trainkit_ptychography.scans.simulated import SimulatedDiffraction

CRYSTAL = SimulatedDiffraction(
    scan_shape=(12, 12),
    step_angstrom=0.7,
    detector_size=32,
    pixel_size_angstrom=0.35,
    energy_kev=200.0,
    semiangle_mrad=28.0,
    defocus_angstrom=70.0,
    dose_per_square_angstrom=3e5,
    slices=6,
    thickness_angstrom=70.0,
)
