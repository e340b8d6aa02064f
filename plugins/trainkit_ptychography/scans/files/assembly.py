"""Makes a `Recording` from the settings and a file's named arrays.

Shapes: N = scan points, M = probe modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.array_file import ArrayFile, ReaderHints, frames_of
from trainkit_ptychography.scans.files.arrays import as_probe
from trainkit_ptychography.scans.files.detector import frame_masks, preparation_of
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.files.object_pixels import as_pair, object_pixels
from trainkit_ptychography.scans.files.scan_points import check_partners, last_place, named_points, scan_points
from trainkit_ptychography.scans.leave_out_live import Selection, by_light, by_name
from trainkit_ptychography.scans.light import light
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import Exposures, Frames, JoinedFrames, PreparedPatterns
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.prepare_live import Preparation, prepared_probe
from trainkit_ptychography.scans.scan import Recording, Scan, Truth
from trainkit_ptychography.scans.shifts import shifts_of_points

_TOTALLED_AT_ONCE = 2**21  # pixels


def read_scan(
    settings: FileDiffraction, file: ArrayFile, hints: ReaderHints | None = None, more: Sequence[ArrayFile] = ()
) -> Recording:
    """Read what the settings name; patterns are read when they are indexed.

    Args:
        settings: The settings.
        file: The file.
        hints: What it says itself.
        more: Files that continue the scan, for a reader that reads those of `FileDiffraction.more_files`.

    Raises:
        DataError: Something is missing, unsafe, or not of the shape that it must have.
    """
    with ExitStack() as guards:
        for each in (*reversed(more), file):
            guards.enter_context(each.reading())
        return _read_scan(settings, [file, *more], hints or ReaderHints())


def _read_scan(settings: FileDiffraction, files: Sequence[ArrayFile], hints: ReaderHints) -> Recording:
    assert settings.patterns is not None  # each reader names them by now
    file = files[0]
    source, prepare = file.source, settings.prepare
    frames = frames_of(settings.patterns, files, settings.pattern_axes)
    points = scan_points(settings, files, frames, hints)
    dtype, of_points = points.dtype, points.settings
    point_T = None if points.of_patterns else _point_of_each(settings, len(frames), len(points.points_N2), source)
    points_N2 = _of_patterns(points.points_N2, point_T)
    selection = _selection(settings, files, frames, points_N2)
    masks = frame_masks(settings, files, frames, hints)
    exposures = _exposures(settings, frames, masks, hints.mask_ignores, selection, source)
    preparation = preparation_of(settings, file, exposures, None if masks is not None else hints.bad_VU)
    if settings.leave_out.below is not None or settings.leave_out.above is not None:
        selection = by_light(settings.leave_out, selection, _light(exposures, preparation))
        exposures = _exposures(settings, frames, masks, hints.mask_ignores, selection, source)
    if not len(exposures):
        raise DataError(f"{source}: leave_out leaves none of {selection.num} patterns")
    scale, sizes, wavelength = object_pixels(of_points, frames.shape[1:], preparation.shape, source)
    pixel_2, distance_m, fresnel = as_pair(settings.detector_pixel_um), settings.detector_distance_m, None
    if pixel_2 is not None and distance_m is not None and wavelength is not None:
        fresnel = float(wavelength * 1e-10 * distance_m / (pixel_2.max() * 1e-6) ** 2)

    def every_in_pixels(points_N2: NDArray[np.float64], as_told: FileDiffraction) -> NDArray[np.float64]:
        swapped = as_told.positions_order == "column_row"
        turned_N2 = oriented(points_N2, swapped, as_told.positions_flip, as_told.positions_rotation_deg)
        return (
            as_told.positions_scale * turned_N2 * object_pixels(as_told, frames.shape[1:], preparation.shape, source)[0]
        )

    def in_pixels(points_N2: NDArray[np.float64], name: str, as_told: FileDiffraction) -> NDArray[np.float64]:
        places = selection.places(len(points_N2))
        if places is None:
            raise DataError(f"{source}: {name}: {_do_not_match(settings, selection, len(frames), len(points_N2))}")
        return every_in_pixels(points_N2[places], as_told)

    probe_MYX = None
    if settings.probe is not None:
        probe_MYX = as_probe(file.array(settings.probe), f"{source}: {settings.probe}", settings.probe_axes)
        if probe_MYX.shape[1:] == frames.shape[1:]:
            flips = ("rows" in settings.pattern_flip, "columns" in settings.pattern_flip)
            images = settings.detector_propagation.patterns_are_images
            probe_MYX = prepared_probe(probe_MYX, preparation.shape, prepare.bin, flips, images)
    truth = None
    if settings.truth_phase is not None and settings.truth_positions is not None:
        phase = file.array(settings.truth_phase)
        if phase.ndim not in (2, 3):
            raise DataError(
                f"{source}: {settings.truth_phase} must be 2-D, or 3-D of slices; its shape is {phase.shape}"
            )
        slices_SKL = phase if phase.ndim == 3 else None
        phase_KL = phase if slices_SKL is None else slices_SKL.sum(axis=0, dtype=np.float64)
        true_N2 = named_points(settings.truth_positions, [file])
        if len(true_N2) == len(points.points_N2):
            true_N2 = _of_patterns(true_N2, point_T)
        unscaled: Any = attrs.evolve(cast(Any, settings), positions_scale=1.0)  # a truth is not in the scan's units
        positions_N2 = in_pixels(true_N2, "truth_positions", unscaled)
        truth = Truth(phase_KL=phase_KL, positions_N2=positions_N2, slices_SKL=slices_SKL)

    scan_N = _scans(frames, selection)
    shifts_N2 = shifts_of_points(settings.scan_shifts_angstrom, scan_N, sizes, source)
    scan = Scan(
        positions_N2=in_pixels(points_N2, "positions", of_points) + shifts_N2,
        source=source,
        pixel_size_angstrom=sizes,
        wavelength_angstrom=wavelength,
        energy_kev=settings.energy_kev,
        semiangle_mrad=settings.semiangle_mrad,
        defocus_angstrom=settings.defocus_angstrom,
        probe_MYX=probe_MYX,
        truth=truth,
        mask_YX=preparation.mask(),
        frame_masks=preparation.may_fail or masks is not None,
        points_N=None if selection.is_all else selection.used_K,
        point_T=point_T,
        every_point_M2=None if point_T is None else every_in_pixels(points.points_N2, of_points),
        scan_N=scan_N,
        left_out=selection.reasons,
        detector_propagation=settings.detector_propagation,
        detector_distance_m=distance_m,
        detector_pixels=fresnel,
        doubts=tuple(points.doubts),
        positions_unit=of_points.unit,
        positions_dtype="float64" if dtype is None else dtype.name,
        positions_rounding=last_place(points_N2, dtype) * float(np.max(scale)),
        prepare=prepare,
        leave_out=settings.leave_out,
    )
    return Recording(PreparedPatterns(exposures, preparation, file.random_access, file.reading), scan)


def _scans(frames: Frames | JoinedFrames, selection: Selection) -> NDArray[np.int64] | None:
    """Return which of the arrays each pattern that is used is from; None: there is one array."""
    if not isinstance(frames, JoinedFrames):
        return None
    places = selection.places(len(frames))
    return frames.part(np.arange(len(frames)) if places is None else places)


def _selection(
    settings: FileDiffraction,
    files: Sequence[ArrayFile],
    frames: Frames | JoinedFrames,
    points_N2: NDArray[np.float64],
) -> Selection:
    """Return which patterns are used, as far as their names and positions say."""
    given, file, num_frames = settings.leave_out, files[0], len(frames)
    marks_N = None
    if given.marks is not None:
        marks = [each.array(given.marks).ravel() for each in files]
        of_files = np.reshape(frames.lengths, (len(files), -1)).sum(axis=1).tolist()
        check_partners(f"marks ({given.marks})", [len(each) for each in marks], of_files, file.source)
        marks_N = np.concatenate(marks)
    selection = by_name(given, max(num_frames, len(points_N2)), marks_N, file.source)
    for length in (num_frames, len(points_N2)):
        if selection.places(length) is None:
            raise DataError(f"{file.source}: {_do_not_match(settings, selection, num_frames, len(points_N2))}")
    if given.without_position or settings.pairing.names_any():
        places = selection.places(len(points_N2))
        lost_K = ~np.isfinite(points_N2[places]).all(axis=1)
        reason = "without a position" if given.without_position else "without a scan point (pairing)"
        selection = selection.without(np.asarray(lost_K), reason)
    return selection


def _point_of_each(
    settings: FileDiffraction, num_frames: int, num_points: int, source: str
) -> NDArray[np.int64] | None:
    """Return the number of the scan point of each pattern, -1: it has none; None: nothing is said of it."""
    if not settings.pairing.names_any():
        return None
    try:
        return np.array(settings.pairing.points(num_frames, num_points), np.int64)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def _of_patterns(points_N2: NDArray[np.float64], point_T: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return the point of each pattern of the file; NaN: it has none."""
    if point_T is None:
        return points_N2
    return np.where(point_T[:, None] >= 0, points_N2[point_T], np.nan)


def _do_not_match(settings: FileDiffraction, selection: Selection, num_frames: int, num_points: int) -> str:
    few = min(num_frames, num_points)
    line = Lines(leave_out=settings.leave_out).leave_out(points=[f"{few}:"])
    left = f", and leave_out names {selection.num - len(selection.named_K)} of them" * (not selection.is_all)
    return (
        f"{num_frames} patterns but positions of shape ({num_points}, 2){left}; there must be one (row, column) for "
        f"each pattern: check the names of both arrays. If they are right and the last ones have no partner, leave "
        f"these out: {line}; if others have none, name those. If a "
        "frame was lost, leave out the last ones, and check --data looks for where"
    )


def _exposures(
    settings: FileDiffraction,
    frames: Frames | JoinedFrames,
    masks: Frames | JoinedFrames | None,
    ignored: int,
    selection: Selection,
    source: str,
) -> Exposures:
    if masks is not None and len(masks) != len(frames):
        raise DataError(
            f"{source}: there are {len(masks)} masks (prepare.mask) for {len(frames)} patterns; there must be one for "
            "each pattern of the file, or one for all"
        )
    if masks is not None:
        check_partners("masks (prepare.mask)", masks.lengths, frames.lengths, source)
    places = None if selection.is_all and len(frames) == selection.num else selection.places(len(frames))
    if places is not None and len(places) == len(frames):
        places = None
    good = settings.prepare.mask_marks == "good" and settings.prepare.mask is not None
    return Exposures(frames, places, masks, good, 0 if settings.prepare.mask is not None else ignored)


def _light(exposures: Exposures, preparation: Preparation) -> NDArray[np.float64]:
    """Return the total of each pattern, as if all pixels that count had been measured in it."""
    step = max(1, _TOTALLED_AT_ONCE // prod(exposures.frame_shape))

    def pieces() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(exposures), step):
            yield preparation(*exposures[slice(start, min(start + step, len(exposures)))])

    totals, sum_YX, times_YX = [], np.zeros(preparation.shape), np.zeros(preparation.shape, np.int64)
    for patterns_BYX in pieces():
        totals.append(np.nansum(patterns_BYX, axis=(1, 2), dtype=np.float64))
        sum_YX += np.nansum(patterns_BYX, axis=0, dtype=np.float64)
        times_YX += (~np.isnan(patterns_BYX)).sum(axis=0)
    totals_N, mean_YX = np.concatenate(totals), sum_YX / np.maximum(times_YX, 1)
    if (times_YX == len(exposures)).all() or not mean_YX.sum() > 0:
        return totals_N
    return light(pieces(), totals_N, mean_YX)
