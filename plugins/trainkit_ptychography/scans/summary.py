"""Sums up a scan: the lines that `check --data` prints, and warnings about what looks wrong.

Units: pixels are those of the object, unless a message says that they are the detector's.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot, prod

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, free_host_memory, shape_in_words
from trainkit_ptychography.physics.optics import aperture_probe
from trainkit_ptychography.scans.descan import doubt_of_descan
from trainkit_ptychography.scans.light import BRIGHT, light, unusual
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import SHARE_OF_MEMORY, PreparedPatterns, pieces
from trainkit_ptychography.scans.pixels import Pixels, doubts_of_pixels, impossible_values
from trainkit_ptychography.scans.positions import likely_unit
from trainkit_ptychography.scans.sampling import (
    Oversampling,
    beam_offset,
    bright_radius,
    disc_radius,
    edge_share,
    mirrored_where_hidden,
    neighbour_distances,
    oversampling,
    probe_diameter,
    scanned_area,
)
from trainkit_ptychography.scans.scan import Checked, unsaid_near_field

_LEAST_OVERLAP = 0.5  # of the diameter; simulated scans with 56 % reconstruct well
_LEAST_MAGNIFICATION = 1.0  # pixels/Å; with 1 to 3, success depends on the areal oversampling
_LONGEST_ELECTRON_WAVE = 0.12  # Å, 10 keV
_COMPLEX_ARRAYS = 7  # of a batch and a mode that are alive at once in the backward pass


def summary(checked: Checked, batch_size: int, slices: int = 1) -> Iterator[str]:
    """Yield lines by which people recognise their experiment.

    Args:
        checked: The scan.
        batch_size: Patterns in a step.
        slices: Slices of the object.
    """
    patterns, scan, survey = checked
    num, shape = len(patterns), (patterns.shape[1], patterns.shape[2])
    size, extent_2 = scan.pixel_size_angstrom, np.ptp(scan.positions_N2, axis=0)
    images = scan.detector_propagation.patterns_are_images
    step = typical_step(checked)
    raster = made_of = ""
    if isinstance(patterns, PreparedPatterns):
        if len(patterns.scan_shape) == 2:
            raster = f" ({shape_in_words(patterns.scan_shape)})"
        if patterns.frame_shape != shape:
            made_of = f", made of {shape_in_words(patterns.frame_shape)}"
    yield f"patterns     {num}{raster} of {shape_in_words(shape)} pixels{made_of}"
    if scan.mask_YX is not None:
        yield f"mask         {int((~scan.mask_YX).sum())} of {prod(shape)} pixels do not count"
        if scan.frame_masks:
            yield "             and others in some patterns"
    elif scan.frame_masks:
        yield "mask         differs from pattern to pattern"
    if scan.left_out:
        num_out = sum(scan.left_out.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in scan.left_out.items())
        yield f"left out     {num_out} of {num_out + num} patterns: {reasons}"
    totals_N = survey.totals_N
    yield f"counts       {totals_N.mean():.4g} a pattern ({totals_N.min():.4g} to {totals_N.max():.4g})"
    if size is not None and scan.wavelength_angstrom is not None:
        yield f"wavelength   {scan.wavelength_angstrom:.5g} Å"
        if not images:
            reach = 1e3 * scan.wavelength_angstrom / (2 * size)
            a_pixel = " × ".join(dict.fromkeys(f"{2 * reach / pixels:.4g}" for pixels in shape))
            yield f"detector     to ±{reach:.4g} mrad, {a_pixel} mrad a pixel"
    yield from scan.detector_propagation.lines(scan.exit_wave(shape))
    if size is None:
        yield "pixel size   not known: everything is in pixels"
    else:
        yield f"pixel size   {_angstrom(size)}"
    yield f"step         {_length(step, size)}"
    yield f"scanned      {_lengths(extent_2[0], extent_2[1], size)}"
    diameter = known_probe_diameter(checked)
    if images:
        field = min(counted_size(shape, scan.mask_YX))
        yield f"overlap      {max(0.0, 100 * (1 - step / field)):.0f} % of the detector, from one point to the next"
    elif diameter is None:
        yield (
            "overlap      not known: that needs a probe in the file (probe = …), or energy, pixel size, semiangle_mrad "
            "and defocus_angstrom in [data]"
        )
    else:
        yield f"probe        {_length(diameter, size)} across"
        overlap = f"{100 * (1 - step / diameter):.0f} % of its diameter" if step < diameter else "none"
        yield f"overlap      {overlap}, from one point to the next"
    sampling = known_oversampling(checked)
    if sampling is not None:
        yield (
            f"sampling     areal oversampling {sampling.areal:.3g}, Ronchigram magnification "
            f"{sampling.ronchigram_magnification:.3g} pixels/Å"
        )
    if size is not None and min(extent_2) > 0:
        area = scanned_area(scan.positions_N2) * size**2
        yield f"dose         {totals_N.sum() / area:.4g} counts/Å²"
    whole = [int(np.ceil(each)) + pixels + 2 for each, pixels in zip(extent_2, shape, strict=True)]
    yield f"object       about {_lengths(whole[0], whole[1], size)}"
    stored, batch = 4 * num * prod(shape), 8 * _COMPLEX_ARRAYS * batch_size * prod(shape)
    free, of_object = free_host_memory(), 32 * slices * prod(whole)
    yield (
        f"memory       patterns {bytes_in_words(stored)}, object {bytes_in_words(of_object)}, a batch of "
        f"{batch_size} about {bytes_in_words(batch)} a probe mode ({bytes_in_words(free)} are free here)"
    )
    if isinstance(patterns, PreparedPatterns) and patterns.in_file and stored > SHARE_OF_MEMORY * free:
        yield "streaming    patterns stay in their file, unless a device has more memory than the host"
    if scan.truth is not None:
        yield "truth        known: object phase and positions"


def typical_step(checked: Checked) -> float:
    """Return the median distance from one scan point to the nearest other, in pixels; 0 for a single place."""
    step = float(np.median(neighbour_distances(checked.scan.positions_N2)))
    return step if np.isfinite(step) else 0.0


def known_probe_diameter(checked: Checked) -> float | None:
    """Return the diameter of the probe in pixels, from the guess that came with the data or from its optics.

    Raises:
        DataError: The aperture does not fit on the detector.
    """
    scan = checked.scan
    if scan.detector_propagation.patterns_are_images:
        return None  # it fills its array, or more
    if scan.probe_MYX is not None:
        return probe_diameter((np.abs(scan.probe_MYX) ** 2).sum(axis=0))
    intensity_YX = _aperture_intensity(checked)
    return None if intensity_YX is None else probe_diameter(intensity_YX)


def known_oversampling(checked: Checked) -> Oversampling | None:
    """Return how densely the specimen and the detector are sampled, for electrons whose optics are known, else None.

    Raises:
        DataError: The aperture does not fit on the detector.
    """
    scan, intensity_YX, step = checked.scan, _aperture_intensity(checked), typical_step(checked)
    if (
        scan.detector_propagation.patterns_are_images
        or intensity_YX is None
        or step <= 0
        or (scan.wavelength_angstrom or 1.0) > _LONGEST_ELECTRON_WAVE
    ):
        return None
    size, wavelength, semiangle = scan.pixel_size_angstrom, scan.wavelength_angstrom, scan.semiangle_mrad
    assert size is not None
    assert wavelength is not None
    assert semiangle is not None
    radius = disc_radius((min(intensity_YX.shape),) * 2, size, wavelength, semiangle)  # where pixels are coarsest
    shadow = 1e-3 * semiangle * abs(scan.defocus_angstrom or 0.0) / size
    return oversampling(intensity_YX, step, size, radius, shadow)


def counted_size(shape: tuple[int, int], mask_YX: NDArray[np.bool_] | None) -> tuple[int, int]:
    """Return how many rows and columns of a pattern have pixels that count."""
    if mask_YX is None:
        return shape
    return int(mask_YX.any(axis=1).sum()), int(mask_YX.any(axis=0).sum())


def _aperture_intensity(checked: Checked) -> NDArray[np.float64] | None:
    """Return the intensity of the probe that the optics give; None: they are not known."""
    patterns, scan, _ = checked
    if scan.semiangle_mrad is None or scan.pixel_size_angstrom is None or scan.wavelength_angstrom is None:
        return None
    shape = (patterns.shape[1], patterns.shape[2])
    defocus = {"C10": (-(scan.defocus_angstrom or 0.0), 0.0)}
    try:
        probe_YX = aperture_probe(
            shape, scan.pixel_size_angstrom, scan.wavelength_angstrom, scan.semiangle_mrad, defocus
        )
    except DataError as error:
        raise DataError(f"{scan.source}: {error}") from error
    return np.abs(probe_YX) ** 2


def doubts(checked: Checked, pixels: Pixels | None = None) -> Iterator[str]:
    """Yield warnings about what is possible but looks wrong, each with what to change.

    Args:
        checked: The scan.
        pixels: What the values of each detector pixel are; None: that is not known.

    Raises:
        DataError: The aperture does not fit on the detector.
    """
    patterns, scan, _ = checked
    yield from scan.doubts
    if near := unsaid_near_field(patterns, scan):
        yield near
        return  # what follows would be about a far field
    lines = scan.lines()
    yield from () if pixels is None else impossible_values(pixels)
    of_pixels = [] if pixels is None else list(doubts_of_pixels(pixels, lines, scan.number))
    yield from of_pixels
    yield from _doubts_of_patterns(checked, lines)
    if scan.detector_propagation.patterns_are_images:
        shape = (patterns.shape[1], patterns.shape[2])
        yield from scan.detector_propagation.doubts(scan.exit_wave(shape), counted_size(shape, scan.mask_YX))
    elif not of_pixels:  # otherwise these would be about the wrong pixels
        yield from _doubts_of_light(checked)
        if of_descan := doubt_of_descan(patterns, scan):
            yield of_descan
    yield from _doubts_of_positions(checked)


def _doubts_of_patterns(checked: Checked, lines: Lines) -> Iterator[str]:
    """Yield which patterns are empty, or much darker or brighter than most."""
    patterns, scan, survey = checked
    light_N = survey.totals_N
    if scan.frame_masks:
        light_N = light((each for _, each in pieces(patterns)), light_N, survey.mean_YX)
    empty_N, dim_N, bright_N = unusual(light_N)
    if empty_N.any():
        first = scan.number(int(np.flatnonzero(empty_N)[0]))
        where = " where they count" if scan.frame_masks else ""
        yield (
            f"{int(empty_N.sum())} of {len(patterns)} patterns are all zero{where}, the first is pattern {first}: "
            f"leave them out, {lines.leave_out(below=0.1)}"
        )
    for those_N, what, limit in (
        (dim_N, "less than a twentieth of", {"below": 0.1}),
        (bright_N, f"more than {BRIGHT:.0f} times", {"above": BRIGHT}),
    ):
        if those_N.any():
            numbers = [scan.number(each) for each in np.flatnonzero(those_N)[:8].tolist()]
            more = " …" if those_N.sum() > len(numbers) else ""
            yield (
                f"{int(those_N.sum())} of {len(patterns)} patterns hold {what} the median total "
                f"({', '.join(map(str, numbers))}{more}): leave them out if the beam was off or the detector failed, "
                f"{lines.leave_out(**limit)}"
            )


def _doubts_of_light(checked: Checked) -> Iterator[str]:
    patterns, scan, survey = checked
    shape, mean_YX = patterns.shape[1:], survey.mean_YX
    if scan.mask_YX is not None and not scan.mask_YX[0, 0]:
        yield (
            "the mask hides the undiffracted beam, so a pattern's total, to which the probe's power is set, is too "
            "small: expect amplitudes of the object above 1"
        )
    whole_YX = mirrored_where_hidden(mean_YX, scan.mask_YX)
    down, right = (round(each, 1) + 0.0 for each in beam_offset(whole_YX))  # not −0
    if hypot(down / shape[0], right / shape[1]) > 0.25:
        yield (
            f"the light is not near the zero frequency but ({down:.0f}, {right:.0f}) pixels off, as if patterns were "
            'cut in four: is zero_frequency the other one of "centre" and "corner"?'
        )
        return  # what follows would be about the wrong pixels
    if hypot(down, right) > max(1.5, 0.03 * min(shape)):
        yield (
            f"the light's centre of mass is ({down:.1f}, {right:.1f}) pixels off the zero frequency: say where the "
            'beam is, zero_frequency = [row, column] or "centre_of_mass"'
        )
    edge = edge_share(mean_YX, scan.mask_YX)
    if edge > 0.2:
        yield (
            f"the detector's edge is {100 * edge:.0f} % as bright as the direct light: the detector does not cover it, "
            "or there is a background to subtract (prepare.background)"
        )
    if (
        scan.semiangle_mrad is not None
        and scan.pixel_size_angstrom is not None
        and scan.wavelength_angstrom is not None
    ):
        told = disc_radius(shape, scan.pixel_size_angstrom, scan.wavelength_angstrom, scan.semiangle_mrad)
        seen = scan.semiangle_mrad * bright_radius(whole_YX) / told
        if not 0.75 < seen / scan.semiangle_mrad < 1.33:
            yield (
                f"the bright disc in the patterns has a radius of {seen:.3g} mrad, but semiangle_mrad is "
                f"{scan.semiangle_mrad:.3g}: check it, the energy, and the pixel size or dk"
            )


def _doubts_of_positions(checked: Checked) -> Iterator[str]:
    patterns, scan, _ = checked
    shape, num = patterns.shape[1:], len(patterns)
    if num < 2:
        return
    distances, room = neighbour_distances(scan.positions_N2), min(shape)
    step = typical_step(checked)
    if scan.positions_rounding > 0.1 * step:
        size = scan.pixel_size_angstrom
        yield (
            f"positions are {scan.positions_dtype}, and their steps ({_length(step, size)}) are about as large as its "
            f"last place there ({_length(scan.positions_rounding, size)}), by half of which they may be wrong: store "
            "them as float64, or subtract their mean before they are stored"
        )
        return  # what follows would be about steps that are none
    hint = likely_unit(step, scan.positions_unit, scan.pixel_size_angstrom, room)
    diameter = known_probe_diameter(checked)
    if alone := int((distances > max(shape)).sum()):
        share = "" if len(distances) == num else f" of {len(distances)} that were looked at"
        yield f"{alone} points{share} are so far from all others that their patches do not overlap: leave them out"
    if step < 0.02:
        yield f"the step is {step:.2g} pixels, next to nothing: check positions_unit and the pixel size{hint}"
    elif diameter is not None and 1 - step / diameter < _LEAST_OVERLAP:
        yield (
            f"the overlap is {max(0.0, 100 * (1 - step / diameter)):.0f} %, and below {100 * _LEAST_OVERLAP:.0f} % a "
            "reconstruction seldom succeeds: check positions_unit, the pixel size and the defocus, or scan more "
            f"densely{hint}"
        )
    sampling = known_oversampling(checked)
    if sampling is not None and sampling.ronchigram_magnification < _LEAST_MAGNIFICATION:
        yield (
            f"the Ronchigram magnification is {sampling.ronchigram_magnification:.2g} detector pixels per Å, and below "
            f"{_LEAST_MAGNIFICATION:g} a reconstruction seldom succeeds: use finer detector pixels (less binning) or "
            "less defocus, or check the energy, semiangle_mrad and the pixel size"
        )
    if room / step < 2 and step >= 0.02:
        yield (
            f"a step of {step:.3g} pixels with patches of {shape_in_words(shape)} gives fewer measurements than "
            "unknowns (patch / step must be 2 or more): scan more densely, or use finer detector pixels (less "
            f"binning){hint}"
        )
    if diameter is not None and diameter > 0.7 * room:
        yield (
            f"the probe is {diameter:.3g} pixels across and its array has {shape_in_words(shape)}: it does not fit, so "
            "the detector's pixels are too coarse for it: bin less, or check the defocus"
        )


def _angstrom(value: float) -> str:
    return f"{value:.4g} Å" if value < 1000 else f"{value / 1e4:.4g} µm" if value >= 1e4 else f"{value / 10:.4g} nm"


def _length(pixels: float, size: float | None) -> str:
    return f"{pixels:.4g} pixels" if size is None else f"{_angstrom(pixels * size)} ({pixels:.3g} pixels)"


def _lengths(rows: float, columns: float, size: float | None) -> str:
    if size is None:
        return f"{rows:.4g} × {columns:.4g} pixels"
    return f"{_angstrom(rows * size)} × {_angstrom(columns * size)} ({rows:.4g} × {columns:.4g} pixels)"
