"""From a measured vacuum pattern to a probe, and what is wrong with the pattern.

Shapes: V, U = rows and columns of the pattern as it was measured, Y, X = those of the detector after preparation, N =
scan points, B = some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, Problem, shape_in_words
from trainkit_ptychography.physics.optics import aberration_phase, scattering_angles
from trainkit_ptychography.scans.files.single_array import read_array
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.prepare_live import Preparation, axis, beam_by_centre_of_mass
from trainkit_ptychography.scans.sampling import (
    beam_offset,
    bright_radius,
    disc_radius,
    edge_share,
    mirrored_where_hidden,
)
from trainkit_ptychography.scans.scan import Recording, Scan

if TYPE_CHECKING:
    from trainkit_ptychography.probes.vacuum import VacuumProbe

_SETTING = "model.probe.path"
_PATTERNS = 64  # of the scan, that the vacuum pattern is held against
_ALIKE = 1.15  # radii of two discs of the same aperture
_BRIGHT, _DARK = 0.4, 0.15  # share of the disc's brightness
_HOLE = 0.02  # of the disc's pixels
_ASYMMETRIC = 0.01  # what the correlation of a pattern with itself turned around lacks of 1
_FAINT = 0.05  # of the disc's brightness: what would pull its centre of mass


def vacuum_probe(settings: VacuumProbe, scan: Scan, shape_YX: tuple[int, int]) -> NDArray[np.complex128]:
    """Return the probe, complex (1, Y, X), centred at pixel (Y//2, X//2).

    Raises:
        DataError: The pattern cannot be read, is empty, or has not as many pixels as those of the scan.
    """
    if scan.pixel_size_angstrom is None or scan.wavelength_angstrom is None:
        known = {
            "data.pixel_size_angstrom": scan.pixel_size_angstrom,
            "data.energy_kev (or wavelength_angstrom)": scan.wavelength_angstrom,
        }
        missing = ", ".join(name for name, value in known.items() if value is None)
        raise DataError(f"{scan.source} does not give all that the phase of a vacuum probe needs; set {missing}")
    intensity_YX = _prepared(settings, scan.prepare, shape_YX).intensity_YX
    intensity_YX = np.where(intensity_YX < settings.dark_below * _brightness(intensity_YX), 0, intensity_YX)
    polar_YX, azimuth_YX = scattering_angles(shape_YX, scan.pixel_size_angstrom, scan.wavelength_angstrom)
    coefficients = settings.coefficients(settings.told_defocus(scan))
    chi_YX = aberration_phase(polar_YX, azimuth_YX, scan.wavelength_angstrom, coefficients)
    wave_YX = np.fft.fftshift(np.fft.ifft2(np.sqrt(intensity_YX) * np.exp(-1j * chi_YX)))
    probe_1YX: NDArray[np.complex128] = wave_YX[None] / np.sqrt((np.abs(wave_YX) ** 2).sum())
    return probe_1YX


def inspect_vacuum(settings: VacuumProbe, recording: Recording) -> Iterator[str | Problem]:
    """Yield a line about the vacuum pattern, and what looks wrong with it, held against the patterns of the scan.

    Raises:
        DataError: As `vacuum_probe` does.
    """
    patterns, scan = recording
    shape_YX = (patterns.shape[1], patterns.shape[2])
    vacuum = _prepared(settings, scan.prepare, shape_YX)
    some = np.unique(np.linspace(0, len(patterns) - 1, _PATTERNS).round().astype(int))
    mean_YX = np.nan_to_num(np.nanmean(np.asarray(patterns[some], np.float64), axis=0))
    radius = bright_radius(vacuum.intensity_YX)
    angle = ""
    if scan.pixel_size_angstrom is not None and scan.wavelength_angstrom is not None:
        a_mrad = disc_radius(shape_YX, scan.pixel_size_angstrom, scan.wavelength_angstrom, 1.0)
        angle = f", {radius / a_mrad:.3g} mrad"
    row, column = vacuum.beam_2
    yield f"vacuum       {vacuum.where}: a disc of radius {radius:.3g} pixels{angle}, around pixel ({row}, {column})"
    yield f"             with a defocus of {settings.told_defocus(scan):g} Å"
    yield from (Problem(each, "path", "warning") for each in _doubts(vacuum, mean_YX, scan, settings.flip))


class _Vacuum(NamedTuple):
    """A vacuum pattern with the pixels of the scan's patterns.

    Attributes:
        intensity_YX: Zero frequency at [0, 0]; not below 0.
        beam_2: Where its beam was, as it was measured.
        where: Where it was found.
    """

    intensity_YX: NDArray[np.float64]
    beam_2: tuple[int, int]
    where: str


def _prepared(settings: VacuumProbe, prepare: Prepare | None, shape_YX: tuple[int, int]) -> _Vacuum:
    values, where = read_array(settings.path, settings.name, _SETTING)
    if values.ndim < 2 or np.iscomplexobj(values):
        raise DataError(
            f"{where} ({_SETTING}) must be a pattern of real numbers, (rows, columns); it is {values.dtype} of shape "
            f'{values.shape}; a complex probe is read by probe = {{ use = "from_file", … }}'
        )
    raw_NVU = values.reshape(-1, *values.shape[-2:]).astype(np.float64)
    measured_VU = np.nanmean(np.where(np.isfinite(raw_NVU), raw_NVU, 0.0), axis=0)
    if settings.values == "amplitude":
        measured_VU = np.square(measured_VU)
    measured_VU = np.maximum(measured_VU, 0)  # a subtracted background leaves noise around 0
    if not measured_VU.any():
        raise DataError(f"{where} ({_SETTING}) holds no light")
    stored = (measured_VU.shape[0], measured_VU.shape[1])
    binned = _binning(prepare, stored, shape_YX)
    if binned is None:
        raise DataError(
            f"{where} ({_SETTING}) has {shape_in_words(stored)} pixels, and the scan's patterns have "
            f"{shape_in_words(shape_YX)} after preparation: it must be a pattern of the same camera, as it was "
            "recorded, or one that was cropped, binned and padded to that many pixels"
        )
    beam = _beam(settings, measured_VU, where)
    rows, columns = (
        axis(stored[which], shape_YX[which], binned, None if beam is None else beam[which], name in settings.flip)
        for which, name in enumerate(("rows", "columns"))
    )
    laid_YX = Preparation(stored, rows, columns)(measured_VU[None].astype(np.float32))[0]
    return _Vacuum(laid_YX.astype(np.float64), beam or (0, 0), where)


def _binning(prepare: Prepare | None, stored: tuple[int, int], shape_YX: tuple[int, int]) -> int | None:
    """Return how many stored pixels make up one along each axis; None: the pattern is not of this camera."""
    binned = 1 if prepare is None else prepare.bin
    crop = None if prepare is None else prepare.crop
    padded = prepare is not None and prepare.pad is not None
    for which, (size, wanted) in enumerate(zip(stored, shape_YX, strict=True)):
        kept = (size if crop is None else crop[which]) // binned
        if kept * binned > size or (kept > wanted if padded else kept != wanted):
            return 1 if stored == shape_YX else None
    return binned


def _beam(settings: VacuumProbe, measured_VU: NDArray[np.float64], where: str) -> tuple[int, int] | None:
    """Return where the zero frequency is; None: at the corner."""
    said = settings.zero_frequency
    if said == "corner":
        return None
    if said == "centre":
        return measured_VU.shape[0] // 2, measured_VU.shape[1] // 2
    if said == "centre_of_mass":
        lit_VU = measured_VU >= max(settings.dark_below, _FAINT) * _brightness(measured_VU)
        return beam_by_centre_of_mass(np.where(lit_VU, measured_VU, 0), where)
    row, column = round(said[0]), round(said[1])
    if not (0 <= row < measured_VU.shape[0] and 0 <= column < measured_VU.shape[1]):
        raise DataError(
            f"{where}: zero_frequency = [{said[0]:g}, {said[1]:g}] is not on the detector of "
            f"{shape_in_words(measured_VU.shape)} pixels"
        )
    return row, column


def _brightness(intensity_YX: NDArray[np.float64]) -> float:
    """Return the brightness of the disc: the mean of pixels, each weighted by its own light."""
    return float((intensity_YX**2).sum() / intensity_YX.sum())


def _doubts(vacuum: _Vacuum, mean_YX: NDArray[np.float64], scan: Scan, flip: Sequence[str]) -> Iterator[str]:
    """Yield what looks wrong with a vacuum pattern next to the mean pattern of the scan, zero frequency at [0, 0]."""
    shape_YX = (mean_YX.shape[0], mean_YX.shape[1])
    if not mean_YX.any():
        return
    seen_YX = mirrored_where_hidden(mean_YX, scan.mask_YX)
    own, theirs = bright_radius(vacuum.intensity_YX), bright_radius(seen_YX)
    if not 1 / _ALIKE < own / theirs < _ALIKE:
        yield (
            f"the vacuum pattern's disc has a radius of {own:.3g} pixels, the bright disc in the scan's patterns "
            f"{theirs:.3g}: it was taken with another camera length or aperture, or binned otherwise"
        )
    elif scan.semiangle_mrad is not None and scan.pixel_size_angstrom and scan.wavelength_angstrom:
        told = disc_radius(shape_YX, scan.pixel_size_angstrom, scan.wavelength_angstrom, scan.semiangle_mrad)
        if not 1 / _ALIKE < own / told < _ALIKE:
            yield (
                f"the vacuum pattern's disc has a radius of {scan.semiangle_mrad * own / told:.3g} mrad, but "
                f"semiangle_mrad is {scan.semiangle_mrad:.3g}: check it, the energy, and the pixel size or dk"
            )
    down, right = (
        mine - other for mine, other in zip(beam_offset(vacuum.intensity_YX), beam_offset(seen_YX), strict=True)
    )
    if np.hypot(down, right) > max(1.5, 0.1 * own):
        yield (
            f"the vacuum pattern's beam is ({down:.1f}, {right:.1f}) pixels off that of the scan's patterns: say where "
            "it is, zero_frequency = [row, column]"
        )
    hidden_YX = np.zeros(shape_YX, bool) if scan.mask_YX is None else ~scan.mask_YX
    if (better := _better_flipped(vacuum.intensity_YX, seen_YX, hidden_YX)) is not None:
        wanted = ", ".join(f'"{name}"' for name in ("rows", "columns") if (name in flip) != (name in better))
        yield (
            f"the vacuum pattern is more like the scan's patterns when it is turned around along its "
            f"{' and '.join(better)}: say flip = [{wanted}], as pattern_flip of the data turns those of the scan"
        )
    frequencies = (np.fft.fftfreq(size, 1 / size) for size in shape_YX)
    rows, columns = frequencies
    disc_YX = np.hypot(rows[:, None], columns) < 0.85 * own
    dark_YX = disc_YX & (vacuum.intensity_YX < _DARK * _brightness(vacuum.intensity_YX))
    lit_YX = (seen_YX > _BRIGHT * _brightness(seen_YX)) | hidden_YX
    if (dark_YX & lit_YX).sum() > _HOLE * disc_YX.sum():
        yield (
            f"{int((dark_YX & lit_YX).sum())} of {int(disc_YX.sum())} pixels within the vacuum pattern's disc are "
            "dark, though the scan's patterns have light there, or do not count there: it shows a beam stop or dead "
            "pixels, which would become part of the probe. Take a pattern without them, or an aperture: "
            'probe = { use = "aperture", … }'
        )
    if edge_share(vacuum.intensity_YX, None) > 0.2:
        yield (
            "the vacuum pattern is bright to the edge of the detector: the detector does not cover the aperture, or "
            "there is a background, which would become part of the probe"
        )


def _better_flipped(
    vacuum_YX: NDArray[np.float64], seen_YX: NDArray[np.float64], hidden_YX: NDArray[np.bool_]
) -> tuple[str, ...] | None:
    """Return along which axes a pattern that is not symmetric has to be turned around to be like another; None: none.

    The gain of the correlation must be half of what an exact copy of the pattern would gain.
    """

    def alike(one_YX: NDArray[np.float64], other_YX: NDArray[np.float64]) -> float:
        return float(np.corrcoef(one_YX[~hidden_YX], other_YX[~hidden_YX])[0, 1])

    gains: dict[tuple[str, ...], float] = {}
    for axes in (("rows",), ("columns",), ("rows", "columns")):
        turned = (
            -np.arange(size) % size if name in axes else np.arange(size)
            for name, size in zip(("rows", "columns"), vacuum_YX.shape, strict=True)
        )
        flipped_YX = vacuum_YX[np.ix_(*turned)]
        asymmetry = 1 - alike(vacuum_YX, flipped_YX)
        gain = alike(flipped_YX, seen_YX) - alike(vacuum_YX, seen_YX)
        if asymmetry > _ASYMMETRIC and gain > 0.5 * asymmetry:
            gains[axes] = gain
    return max(gains, key=lambda axes: gains[axes]) if gains else None
