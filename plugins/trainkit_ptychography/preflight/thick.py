"""What ``check --data`` says of several slices: whether they are too thick or too thin, or the beam leaves the grid."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, prod
from typing import TYPE_CHECKING

from trainkit import Problem, bytes_in_words, free_host_memory
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.lens import Lens

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.scan import Scan

_BYTES = 32  # of an object pixel in each slice: phase and absorption, their gradients, and two moments of each
_WITHIN = 0.9  # of half the grid, which the beam should not leave
_USUAL = 3  # slices within the depth that patterns resolve


def inspect_slices(
    data: DiffractionData, probe: Probe, slices: int, thickness_angstrom: float
) -> Iterator[str | Problem]:
    """Yield a line about the slices, and what is doubtful about them.

    Args:
        data: The scan's settings.
        probe: The probe's settings.
        slices: Number of slices, at least 2.
        thickness_angstrom: Thickness of the specimen.
    """
    patterns, scan = data.read()
    shape = (patterns.shape[1], patterns.shape[2])
    spacing = thickness_angstrom / slices
    size, wavelength = scan.pixel_size_angstrom, scan.wavelength_angstrom
    if size is None or wavelength is None:
        lacking = "pixel_size_angstrom" if size is None else "energy_kev"
        yield Problem(f"waves cannot be propagated from slice to slice: [data] does not tell {lacking}", "slices")
        return
    needed = _BYTES * slices * prod(place(scan.positions_N2, shape, margin=4).shape_HW)
    semiangle = _semiangle_rad(probe, scan)
    resolved = None if not semiangle else wavelength / semiangle**2
    in_depth = "" if resolved is None else f"; patterns resolve about {resolved:.3g} Å in depth"
    yield f"slices       {slices}, {spacing:.3g} Å apart, {thickness_angstrom:.4g} Å in all{in_depth}"
    if needed > (free := free_host_memory()):
        yield _doubt(
            f"an object of {slices} slices takes {bytes_in_words(needed)} while it is trained, and "
            f"{bytes_in_words(free)} are free here: lower slices",
            "slices",
        )
    if resolved is None or semiangle is None:
        return
    if spacing > resolved:
        enough = ceil(_USUAL * thickness_angstrom / resolved)
        yield _doubt(
            f"each slice stands for {spacing:.3g} Å, more than the {resolved:.3g} Å (wavelength / semiangle²) in which "
            f"the beam stays as it is: slices = {enough} would do; or check the thickness (Å, not nm)",
            "slices",
        )
    if thickness_angstrom < resolved / 2:
        yield _doubt(
            f"a specimen of {thickness_angstrom:.3g} Å is thinner than patterns resolve in depth ({resolved:.3g} Å): "
            "one slice would explain them as well, and what differs between slices is noise; check the thickness (Å, "
            "not nm)",
            "thickness_angstrom",
        )
    defocus = _defocus_angstrom(probe, scan)
    radius = semiangle * max(abs(defocus), abs(defocus - thickness_angstrom))
    if radius > _WITHIN * (half := min(shape) * size / 2):
        where = "entrance" if abs(defocus) > abs(defocus - thickness_angstrom) else "exit"
        yield _doubt(
            f"at the {where} of the specimen the beam is {2 * radius:.3g} Å wide, but a patch only {2 * half:.3g} Å: "
            "what leaves it on one side comes back on the other, and slices there are wrong; check the thickness and "
            "the defocus (Å, not nm), or bin the detector less",
            "thickness_angstrom",
        )


def _doubt(text: str, key: str) -> Problem:
    return Problem(text, key, "warning")


def _semiangle_rad(probe: Probe, scan: Scan) -> float | None:
    told = probe.semiangle_mrad if isinstance(probe, Aperture) else None
    told = scan.semiangle_mrad if told is None else told
    return None if told is None else 1e-3 * told


def _defocus_angstrom(probe: Probe, scan: Scan) -> float:
    return probe.told_defocus(scan) if isinstance(probe, Lens) else scan.defocus_angstrom or 0.0
