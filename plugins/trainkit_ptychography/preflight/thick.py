"""What ``check --data`` says of several slices: whether they are too thick or too thin, or the beam leaves the grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod, tan
from typing import TYPE_CHECKING

import numpy as np

from trainkit import Problem, bytes_in_words, free_host_memory
from trainkit_ptychography.constraints.told_probe import probe_at_start
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.lens import Lens
from trainkit_ptychography.scans.sampling import bright_radius, disc_radius

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.probes.modes import ProbeModes
    from trainkit_ptychography.propagators.coarse_slices import CoarseSlices
    from trainkit_ptychography.scans.kind import DiffractionData

_BYTES = 32  # of an object pixel in each slice: phase and absorption, their gradients, and two moments of each
_WITHIN = 0.9  # of half the grid, which the beam should not leave
_USUAL = 3  # slices within the depth that patterns resolve


def inspect_slices(
    data: DiffractionData,
    probe: Probe,
    slices: int,
    thickness_angstrom: float,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    coarse: Sequence[CoarseSlices] = (),
    scan_tilts_mrad: Sequence[tuple[float, float]] = (),
) -> Iterator[str | Problem]:
    """Yield a line about the slices, and what is doubtful about them.

    Args:
        data: The scan's settings.
        probe: The probe's settings.
        slices: Number of slices, at least 2.
        thickness_angstrom: Thickness of the specimen.
        tilt_mrad: Direction of the beam through the slices.
        seed: The run's seed, which some probes depend on.
        coarse: Stages with fewer slices, in order.
        scan_tilts_mrad: By how much the direction differs in each of several scans.

    Raises:
        DataError: The scan or the probe cannot be read.
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
    told = probe.semiangle_mrad if isinstance(probe, Aperture) else None
    told = scan.semiangle_mrad if told is None else told
    semiangle = 1e-3 * (_bright_semiangle_mrad(probe_at_start(data, probe, seed)) if told is None else told)
    resolved = wavelength / semiangle**2
    yield (
        f"slices       {slices}, {spacing:.3g} Å apart, {thickness_angstrom:.4g} Å in all; patterns resolve about "
        f"{resolved:.3g} Å in depth"
    )
    of_slice = 8 * data.batch_size * prod(shape)
    yield f'             waves = "stored" takes {bytes_in_words(slices * of_slice)} for a batch and a probe mode'
    for stage in coarse:
        thick = f"{stage.slices} × {thickness_angstrom / stage.slices:.3g} Å"
        first = "epoch" if stage.stop_epoch == 1 else f"{stage.stop_epoch} epochs"
        yield f"             in the first {first}: {thick}, {bytes_in_words(stage.slices * of_slice)}"
    if scan_tilts_mrad:
        yield "             tilts of the scans: " + "; ".join(
            f"{rows + tilt_mrad[0]:.3g}, {columns + tilt_mrad[1]:.3g} mrad" for rows, columns in scan_tilts_mrad
        )
        if scan.num_scans != len(scan_tilts_mrad):
            yield Problem(
                f"the data joins {scan.num_scans} scans, and there are {len(scan_tilts_mrad)} tilts", "scan_tilts_mrad"
            )
    if needed > (free := free_host_memory()):
        yield _doubt(
            f"an object of {slices} slices takes {bytes_in_words(needed)} while it is trained, and "
            f"{bytes_in_words(free)} are free here: lower slices",
            "slices",
        )
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
    defocus = probe.told_defocus(scan) if isinstance(probe, Lens) else scan.defocus_angstrom
    if defocus is None:
        return
    tilts_mrad = [[one + own for one, own in zip(tilt_mrad, each, strict=True)] for each in scan_tilts_mrad or [(0, 0)]]
    sideways = thickness_angstrom * max(abs(tan(1e-3 * each)) for both in tilts_mrad for each in both)
    tilt_key = "scan_tilts_mrad" if scan_tilts_mrad else "tilt_mrad"
    at_entrance, at_exit = semiangle * abs(defocus), semiangle * abs(defocus - thickness_angstrom) + sideways
    if max(at_entrance, at_exit) > _WITHIN * (half := min(shape) * size / 2):
        where = "entrance" if at_entrance > at_exit else "exit"
        yield _doubt(
            f"at the {where} of the specimen the beam reaches {max(at_entrance, at_exit):.3g} Å from the middle of its "
            f"patch, which ends at {half:.3g} Å: what leaves it on one side comes back on the other, and slices there "
            "are wrong; check the thickness and the defocus (Å, not nm) and {tilt_key}, or bin the detector less",
            tilt_key if sideways > 0.5 * at_exit and where == "exit" else "thickness_angstrom",
        )


def _doubt(text: str, key: str) -> Problem:
    return Problem(text, key, "warning")


def _bright_semiangle_mrad(probe: ProbeModes) -> float:
    """Return the half opening angle of the disc of light of a probe whose pixel size and wavelength are known."""
    size, wavelength = probe.sampling
    assert size is not None
    assert wavelength is not None
    light_YX = (np.abs(np.fft.fft2(probe().detach().numpy())) ** 2).sum(axis=0)
    return bright_radius(light_YX) / disc_radius(light_YX.shape, size, wavelength, 1.0)
