"""Makes a `Recording` from the settings and a file's named arrays.

Shapes: N = scan points, V, U = rows and columns of a frame as it is stored, M = probe modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from math import prod
from typing import Any, NamedTuple, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.physics.optics import electron_wavelength, photon_wavelength
from trainkit_ptychography.scans.files.arrays import as_points, as_probe
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.files.points_file import read_points
from trainkit_ptychography.scans.leave_out_live import Selection, by_light, by_name
from trainkit_ptychography.scans.light import light
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import Exposures, Frames, JoinedFrames, PreparedPatterns, Stored
from trainkit_ptychography.scans.positions import ANGSTROM, oriented, raster
from trainkit_ptychography.scans.prepare_live import Axis, Preparation, axis, beam_by_centre_of_mass, prepared_probe
from trainkit_ptychography.scans.scan import Recording, Scan, Truth

_LOOKED_AT = 512  # patterns, evenly spread, whose mean shows where the beam is
_TOTALLED_AT_ONCE = 2**21  # pixels
_MOST_LISTED = 10


class ArrayFile(Protocol):
    """A file that holds arrays of numbers by name.

    Attributes:
        source: What messages call it.
        random_access: Whether `stored` gives arrays that are read where they are indexed.
    """

    source: str
    random_access: bool

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        ...

    def stored(self, name: str) -> Stored:
        """Return an array, to be read in parts.

        Raises:
            DataError: There is none of this name (says which there are), or it is not safe to read.
        """
        ...

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole array. Raises as `stored` does."""
        ...


class ReaderHints(NamedTuple):
    """What a file says itself, so that settings need not name it.

    Attributes:
        points_N2: The positions, in the form of an array of positions.
        bad_VU: Which pixels are bad.
        mask: Name of an array of masks, one for each pattern, non-zero at bad pixels.
        mask_ignores: Bits of those masks that do not make a pixel bad.
        positions_dtype: The dtype that the positions have in the file.
    """

    points_N2: NDArray[np.float64] | None = None
    bad_VU: NDArray[np.bool_] | None = None
    mask: str | None = None
    mask_ignores: int = 0
    positions_dtype: np.dtype[Any] | None = None


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
    frames = _frames(settings.patterns, files, settings.pattern_axes)
    points_N2, dtype, of_points, doubts = _points(settings, files, frames, hints)
    selection = _selection(settings, files, frames, points_N2)
    masks = _frame_masks(settings, files, frames, hints)
    exposures = _exposures(settings, frames, masks, hints.mask_ignores, selection, source)
    preparation = _preparation(settings, file, exposures, None if masks is not None else hints.bad_VU)
    if settings.leave_out.below is not None or settings.leave_out.above is not None:
        selection = by_light(settings.leave_out, selection, _light(exposures, preparation))
        exposures = _exposures(settings, frames, masks, hints.mask_ignores, selection, source)
    if not len(exposures):
        raise DataError(f"{source}: leave_out leaves none of {selection.num} patterns")
    scale, sizes, wavelength = _geometry(of_points, frames.shape[1:], preparation.shape, source)
    pixel_2, distance_m, fresnel = _pair(settings.detector_pixel_um), settings.detector_distance_m, None
    if pixel_2 is not None and distance_m is not None and wavelength is not None:
        fresnel = float(wavelength * 1e-10 * distance_m / (pixel_2.max() * 1e-6) ** 2)

    def in_pixels(points_N2: NDArray[np.float64], name: str, as_told: FileDiffraction) -> NDArray[np.float64]:
        places = selection.places(len(points_N2))
        if places is None:
            raise DataError(f"{source}: {name}: {_do_not_match(settings, selection, len(frames), len(points_N2))}")
        swapped = as_told.positions_order == "column_row"
        turned_N2 = oriented(points_N2[places], swapped, as_told.positions_flip, as_told.positions_rotation_deg)
        return turned_N2 * _geometry(as_told, frames.shape[1:], preparation.shape, source)[0]

    probe_MYX = None
    if settings.probe is not None:
        probe_MYX = as_probe(file.array(settings.probe), f"{source}: {settings.probe}", settings.probe_axes)
        if probe_MYX.shape[1:] == frames.shape[1:]:
            flips = ("rows" in settings.pattern_flip, "columns" in settings.pattern_flip)
            probe_MYX = prepared_probe(probe_MYX, preparation.shape, prepare.bin, flips)
    truth = None
    if settings.truth_phase is not None and settings.truth_positions is not None:
        phase = file.array(settings.truth_phase)
        if phase.ndim not in (2, 3):
            raise DataError(
                f"{source}: {settings.truth_phase} must be 2-D, or 3-D of slices; its shape is {phase.shape}"
            )
        slices_SKL = phase if phase.ndim == 3 else None
        phase_KL = phase if slices_SKL is None else slices_SKL.sum(axis=0, dtype=np.float64)
        true_N2 = _named_points(settings.truth_positions, [file])
        positions_N2 = in_pixels(true_N2, "truth_positions", settings)
        truth = Truth(phase_KL=phase_KL, positions_N2=positions_N2, slices_SKL=slices_SKL)

    scan = Scan(
        positions_N2=in_pixels(points_N2, "positions", of_points),
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
        scan_N=_scans(frames, selection),
        left_out=selection.reasons,
        detector_pixels=fresnel,
        doubts=tuple(doubts),
        positions_unit=of_points.unit,
        positions_dtype="float64" if dtype is None else dtype.name,
        positions_rounding=_rounding(points_N2, dtype) * float(np.max(scale)),
        prepare=prepare,
        leave_out=settings.leave_out,
    )
    return Recording(PreparedPatterns(exposures, preparation, file.random_access, file.reading), scan)


# ---- which patterns, and where they were taken ----------------------------------------------------------------------


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _in_words(names: str | tuple[str, ...] | None) -> str:
    return ", ".join(_several(names or ""))


def _frames(names: str | tuple[str, ...], files: Sequence[ArrayFile], axes: str | None) -> Frames | JoinedFrames:
    """Return the frames of an array, or of several of them one after the other."""
    places = [(file, name) for file in files for name in _several(names)]
    titles = [f"{file.source}: {name}" for file, name in places]
    parts = [Frames(file.stored(name), axes, title) for (file, name), title in zip(places, titles, strict=True)]
    return parts[0] if len(parts) == 1 else JoinedFrames(parts, titles)


def _scans(frames: Frames | JoinedFrames, selection: Selection) -> NDArray[np.int64] | None:
    """Return which of the arrays each pattern that is used is from; None: there is one array."""
    if not isinstance(frames, JoinedFrames):
        return None
    places = selection.places(len(frames))
    return frames.part(np.arange(len(frames)) if places is None else places)


class _Points(NamedTuple):
    """Positions.

    Attributes:
        points_N2: All of them, as their file has them.
        dtype: The dtype in which it holds them.
        settings: The settings, as they hold for these positions.
        doubts: What is not certain about them.
    """

    points_N2: NDArray[np.float64]
    dtype: np.dtype[Any] | None
    settings: FileDiffraction
    doubts: Sequence[str] = ()


def _points(
    settings: FileDiffraction, files: Sequence[ArrayFile], frames: Frames | JoinedFrames, hints: ReaderHints
) -> _Points:
    """Return the positions, from wherever the settings say."""
    if settings.positions_path is not None:
        return _points_of_another_file(settings, len(frames))
    if hints.points_N2 is not None:
        return _Points(hints.points_N2, hints.positions_dtype, settings)
    if settings.raster is not None:
        points_N2 = _raster(settings, frames, files[0].source)
        return _Points(points_N2, None, settings, _doubts_about_joined_rasters(settings, frames))
    assert settings.positions is not None  # each reader names them by now
    dtypes = [file.stored(name).dtype for file in files for name in _several(settings.positions)]
    points_N2 = _named_points(settings.positions, files, frames.lengths)
    return _Points(points_N2, min(dtypes, key=lambda each: each.itemsize), settings)


def _points_of_another_file(settings: FileDiffraction, num_frames: int) -> _Points:
    assert settings.positions_path is not None  # only asked for then
    found = read_points(settings.positions_path, settings.positions, settings.positions_unit)
    changed: Any = settings
    doubts = []
    if found.unit is not None:
        changed = attrs.evolve(changed, positions_unit=found.unit)
    elif settings.positions_unit is None:
        doubts.append(
            f"{settings.positions_path} does not say the unit of its positions, so they are taken as {settings.unit}: "
            f'say it, positions_unit = "{settings.unit}" if that is right'
        )
    if found.tells_rows and settings.positions_order == "column_row":
        doubts.append(
            f"{settings.positions_path} says itself which numbers are rows, and positions_order = "
            '"column_row" exchanges them: leave that out, or name the two that are to be taken, positions = '
            "[rows, columns]"
        )
    if found.is_oriented:
        changed = attrs.evolve(changed, positions_order="row_column", positions_flip=(), positions_rotation_deg=0.0)
        prepare = settings.prepare
        if found.unit == "pixels" and (prepare.crop is not None or prepare.pad is not None or prepare.bin != 1):
            raise DataError(
                f"{settings.positions_path} holds positions in pixels of its object alone, and the patterns are "
                "cropped, binned or padded, which changes pixels: give the data's pixel size in both runs"
            )
    points_N2 = found.points_N2
    if found.numbers_N is not None:
        if int(found.numbers_N.max(initial=-1)) >= num_frames:
            raise DataError(
                f"{settings.positions_path} has the position of pattern {found.numbers_N.max()}, but there are "
                f"{num_frames} (0 to {num_frames - 1}): it is that of another scan"
            )
        points_N2 = np.full((num_frames, 2), np.nan)
        points_N2[found.numbers_N] = found.points_N2
    return _Points(points_N2, found.dtype, changed, doubts)


def _named_points(
    names: str | tuple[str, ...], files: Sequence[ArrayFile], lengths: Sequence[int] = ()
) -> NDArray[np.float64]:
    """Return the points of one array, of as many arrays as there are of patterns, or of [rows, columns].

    Args:
        names: The arrays.
        files: The files, each of which has all of them.
        lengths: Number of patterns in each array of patterns, of all files.
    """
    named, found, wanted = _several(names), [], list[int]()
    num_patterns = len(lengths) // len(files)
    for place, file in enumerate(files):
        arrays = [file.array(name) for name in named]
        of_each = lengths[place * num_patterns : (place + 1) * num_patterns]
        if len(named) == 1 or (len(named) == num_patterns and _are_points(arrays, of_each)):
            found += [as_points(array, f"{file.source}: {name}") for array, name in zip(arrays, named, strict=True)]
            wanted += of_each if len(named) == num_patterns else [sum(of_each)]
            continue
        if len(named) != 2:
            of = f" (for {num_patterns} of patterns)" if num_patterns > 1 else ""
            raise DataError(
                f"{file.source}: positions names {len(named)} arrays{of}: name one of (row, column) for each pattern, "
                "or one for each array of patterns, or two, [rows, columns]"
            )
        rows, columns = (array.ravel() for array in arrays)
        if len(rows) != len(columns):
            raise DataError(f"{file.source}: {named[0]} has {len(rows)} values, {named[1]} has {len(columns)}")
        found.append(np.stack([rows, columns], axis=1).astype(np.float64))
        wanted.append(sum(of_each))
    _check_partners("positions", [len(each) for each in found], wanted, files[0].source)
    return np.concatenate(found)


def _check_partners(what: str, held: Sequence[int], patterns: Sequence[int], source: str) -> None:
    """Check that what belongs to joined patterns fits them array by array, and not only in all.

    Raises:
        DataError: The sums alone agree, so that some patterns would get what belongs to others.
    """
    if len(held) == len(patterns) and list(held) != list(patterns) and sum(held) == sum(patterns):
        raise DataError(
            f"{source}: the arrays that are joined hold {_listed(patterns)} patterns, but {_listed(held)} {what}: in "
            "each there must be as many as patterns"
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:_MOST_LISTED]) + ", …" * (len(numbers) > _MOST_LISTED)


def _are_points(arrays: Sequence[NDArray[Any]], lengths: Sequence[int]) -> bool:
    """Return whether each of several arrays holds (row, column) of so many points, and none rows or columns alone."""
    if all(array.ndim > 1 and array.shape[-1] == 2 for array in arrays):
        return True
    return all(array.shape == (2, length) for array, length in zip(arrays, lengths, strict=True))


def _rounding(points_N2: NDArray[np.float64], dtype: np.dtype[Any] | None) -> float:
    """Return the last place of the largest position, in the dtype in which the file holds it."""
    if dtype is None or dtype.kind != "f" or not np.isfinite(points_N2).any():
        return 0.0
    largest = np.abs(points_N2[np.isfinite(points_N2)]).max()
    return float(np.spacing(np.asarray(largest, dtype.newbyteorder("="))))


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
        _check_partners(f"marks ({given.marks})", [len(each) for each in marks], of_files, file.source)
        marks_N = np.concatenate(marks)
    selection = by_name(given, max(num_frames, len(points_N2)), marks_N, file.source)
    for length in (num_frames, len(points_N2)):
        if selection.places(length) is None:
            raise DataError(f"{file.source}: {_do_not_match(settings, selection, num_frames, len(points_N2))}")
    if given.without_position:
        places = selection.places(len(points_N2))
        lost_K = ~np.isfinite(points_N2[places]).all(axis=1)
        selection = selection.without(np.asarray(lost_K), "without a position")
    return selection


def _do_not_match(settings: FileDiffraction, selection: Selection, num_frames: int, num_points: int) -> str:
    few = min(num_frames, num_points)
    line = Lines(leave_out=settings.leave_out).leave_out(points=[f"{few}:"])
    left = f", and leave_out names {selection.num - len(selection.named_K)} of them" * (not selection.is_all)
    return (
        f"{num_frames} patterns but positions of shape ({num_points}, 2){left}; there must be one (row, column) for "
        f"each pattern: check the names of both arrays. If they are right and the last ones have no partner, leave "
        f"these out: {line}; if others have none, name those"
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
        _check_partners("masks (prepare.mask)", masks.lengths, frames.lengths, source)
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


def _raster(settings: FileDiffraction, frames: Frames | JoinedFrames, source: str) -> NDArray[np.float64]:
    given = settings.raster
    assert given is not None  # only asked for then
    shape = given.shape
    if shape is None:
        if len(frames.scan_shape) != 2:
            raise DataError(
                f"{source}: {_in_words(settings.patterns)} has one scan axis ({frames.shape[0]} points), so the raster "
                "needs its shape = [slow, fast]"
            )
        shape = (frames.scan_shape[0], frames.scan_shape[1])
    if shape[0] * shape[1] != frames.shape[0] and not settings.leave_out.names_any():
        few = min(shape[0] * shape[1], frames.shape[0])
        raise DataError(
            f"{source}: a raster of {shape[0]} × {shape[1]} has {shape[0] * shape[1]} points, but there are "
            f"{frames.shape[0]} patterns; change raster.shape, or leave out the last ones, if these have no partner: "
            f"{Lines(leave_out=settings.leave_out).leave_out(points=[f'{few}:'])}"
        )
    step = given.step if isinstance(given.step, tuple) else (given.step, given.step)
    return raster(shape, step, given.snake)


def _doubts_about_joined_rasters(settings: FileDiffraction, frames: Frames | JoinedFrames) -> Sequence[str]:
    """Return the doubt whether several rasters follow each other, if nothing but their shapes says so."""
    assert settings.raster is not None  # only asked for then
    if len(frames.lengths) == 1 or settings.raster.shape is not None or min(frames.lengths) <= frames.scan_shape[1]:
        return ()
    rows, columns = frames.scan_shape
    return (
        f"{len(frames.lengths)} rasters are taken as one of {rows} × {columns} points, each below the one before: say "
        f"it if that is right, raster.shape = [{rows}, {columns}]; scans of the same place need positions instead",
    )


# ---- the detector ---------------------------------------------------------------------------------------------------


def _preparation(
    settings: FileDiffraction, file: ArrayFile, exposures: Exposures, hinted_bad_VU: NDArray[np.bool_] | None
) -> Preparation:
    prepare, frame = settings.prepare, exposures.frame_shape
    background: NDArray[np.float32] | None = None
    if isinstance(prepare.background, str):
        background = _of_frame(file.array(prepare.background), frame, prepare.background, "background", file.source)
        background = background.astype(np.float32)
    elif prepare.background is not None:
        background = np.float32(prepare.background) * np.ones((), np.float32)
    whole = Preparation(
        frame,
        axis(frame[0], frame[0], 1, 0, False),
        axis(frame[1], frame[1], 1, 0, False),
        amplitudes=settings.values == "amplitude",
        background=background,
        bad_VU=_bad_pixels(settings, file, frame, hinted_bad_VU),
        bad_values=prepare.bad_values,
        bad_above=prepare.bad_above,
        beyond_is_dark=prepare.beyond_detector == "dark",
    )
    _check_background(background, whole, prepare.background, file.source)
    beam = _beam(settings, exposures, whole, file.source)
    shape = [_size(settings, which, frame[which]) for which in (0, 1)]
    rows, columns = (
        axis(frame[which], shape[which], prepare.bin, beam[which], name in settings.pattern_flip)
        for which, name in ((0, "rows"), (1, "columns"))
    )
    kept = [
        _cropped(each, _kept(settings, which, frame[which]), shape[which]) for which, each in enumerate((rows, columns))
    ]
    return attrs.evolve(whole, rows=kept[0], columns=kept[1])


def _check_background(
    background: NDArray[np.float32] | None, whole: Preparation, name: float | str | None, source: str
) -> None:
    """Check that a background is a number wherever pixels count: they would be lost, or spoil their pattern."""
    if background is None or np.isfinite(background).all():
        return
    lost_VU = np.broadcast_to(~np.isfinite(background), whole.stored_shape) & whole.used()
    if lost_VU.any():
        row, column = np.argwhere(lost_VU)[0].tolist()
        raise DataError(
            f"{source}: {name} (prepare.background) is not finite at {int(lost_VU.sum())} pixels that count, the first "
            f"is [{row}, {column}]: mark these pixels as bad (prepare.mask, prepare.bad_pixels), or give a number there"
        )


def _kept(settings: FileDiffraction, which: int, stored: int) -> int:
    """Return how many pixels of a pattern come from the detector."""
    crop = settings.prepare.crop
    return (stored if crop is None else min(crop[which], stored)) // settings.prepare.bin


def _size(settings: FileDiffraction, which: int, stored: int) -> int:
    """Return how many pixels a pattern has along an axis."""
    kept, pad = _kept(settings, which, stored), settings.prepare.pad
    if kept < 1:
        raise DataError(f"{settings.path}: bin = {settings.prepare.bin} leaves nothing of {stored} pixels")
    if pad is None:
        return kept
    if pad[which] < kept:
        raise DataError(f"{settings.path}: prepare.pad = {list(pad)} is smaller than the {kept} pixels that are kept")
    return pad[which]


def _cropped(laid: Axis, kept: int, size: int) -> Axis:
    """Take out what a crop leaves out, where a pattern is then padded again."""
    if kept == size:
        return laid
    frequency_Y = np.fft.ifftshift(np.arange(size) - size // 2)
    inside_Y = (frequency_Y >= -(kept // 2)) & (frequency_Y < kept - kept // 2)
    return Axis(laid.place_bY, laid.there_bY & inside_Y)


def _bad_pixels(
    settings: FileDiffraction, file: ArrayFile, frame: tuple[int, ...], hinted_VU: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    prepare, source = settings.prepare, file.source
    bad_VU = np.zeros(frame, bool)
    masks = _several(prepare.mask or ())
    if len(masks) == 1 and _is_single(file.stored(masks[0]).shape):
        marked_VU = _of_frame(file.array(masks[0]), frame, masks[0], "mask", source) != 0
        bad_VU |= marked_VU if prepare.mask_marks == "bad" else ~marked_VU
    elif hinted_VU is not None:
        bad_VU |= _of_frame(hinted_VU, frame, "its mask", "mask", source)
    places = [(f"bad_pixels {list(each)}", each) for each in prepare.bad_pixels]
    places += [(f"bad_rows {row}", (row, 0)) for row in prepare.bad_rows]
    places += [(f"bad_columns {column}", (0, column)) for column in prepare.bad_columns]
    for name, (row, column) in places:
        if row >= frame[0] or column >= frame[1]:
            raise DataError(f"{source}: prepare.{name} is not on the detector of {frame[0]} × {frame[1]} pixels")
    for row, column in prepare.bad_pixels:
        bad_VU[row, column] = True
    bad_VU[list(prepare.bad_rows)] = True
    bad_VU[:, list(prepare.bad_columns)] = True
    if bad_VU.all():
        raise DataError(f'{source}: all pixels are masked; does the mask mark the good ones (mask_marks = "good")?')
    return bad_VU if bad_VU.any() else None


def _frame_masks(
    settings: FileDiffraction, files: Sequence[ArrayFile], frames: Frames | JoinedFrames, hints: ReaderHints
) -> Frames | JoinedFrames | None:
    """Return the masks of single patterns; None: there is one for all, or none."""
    names = _several(settings.prepare.mask or hints.mask or ())
    if not names or (len(names) == 1 and _is_single(files[0].stored(names[0]).shape)):
        return None
    masks = _frames(names, files, settings.pattern_axes)
    if masks.shape[1:] != frames.shape[1:]:
        raise DataError(
            f"{files[0].source}: {_in_words(names)} (prepare.mask) holds masks of {masks.shape[1]} × {masks.shape[2]} "
            f"pixels, but a pattern has {frames.shape[1]} × {frames.shape[2]}; there must be one (rows, columns) for "
            "all patterns, or one for each"
        )
    return masks


def _is_single(shape: tuple[int, ...]) -> bool:
    return sum(size > 1 for size in shape[:-2]) == 0


def _of_frame(array: NDArray[Any], frame: tuple[int, ...], name: str, key: str, source: str) -> NDArray[Any]:
    """Return an array that must have a frame's shape, without leading axes of length 1."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.shape != frame:
        raise DataError(
            f"{source}: {name} (prepare.{key}) has the shape {array.shape}, but a pattern has {frame[0]} × {frame[1]} "
            "pixels"
        )
    return array


def _beam(
    settings: FileDiffraction, exposures: Exposures, whole: Preparation, source: str
) -> tuple[int | None, int | None]:
    """Return where the zero frequency is in a frame; None: at the corner."""
    said, frame = settings.zero_frequency, exposures.frame_shape
    if said == "corner":
        return None, None
    if said == "centre":
        return frame[0] // 2, frame[1] // 2
    if said == "centre_of_mass":
        num = min(_LOOKED_AT, len(exposures))
        total_VU = np.zeros(frame)
        points = np.unique(np.linspace(0, len(exposures) - 1, num).astype(np.int64))
        for points_B in np.array_split(points, -(-num // 16)):
            intensities_BVU = whole.intensities(*exposures[points_B])
            if whole.may_fail or exposures.has_masks:
                intensities_BVU = np.nan_to_num(intensities_BVU, copy=False, nan=0.0, posinf=np.inf)
            total_VU += intensities_BVU.sum(axis=0, dtype=np.float64)
        return beam_by_centre_of_mass(total_VU, f"{source}: {_in_words(settings.patterns)}")
    row, column = round(said[0]), round(said[1])
    if not (0 <= row < frame[0] and 0 <= column < frame[1]):
        raise DataError(
            f"{source}: zero_frequency = [{said[0]:g}, {said[1]:g}] is not on the detector of {frame[0]} × "
            f"{frame[1]} pixels"
        )
    return row, column


# ---- sizes ----------------------------------------------------------------------------------------------------------


def _geometry(
    settings: FileDiffraction, frame: tuple[int, ...], shape: tuple[int, int], source: str
) -> tuple[NDArray[np.float64], float | None, float | None]:
    """Return pixels to a unit of the positions (row, column), the object pixel's size in Å, and the wavelength."""
    wavelength = settings.wavelength_angstrom
    if settings.energy_kev is not None:
        of_energy: Callable[[float], float] = (
            electron_wavelength if settings.radiation == "electrons" else photon_wavelength
        )
        wavelength = of_energy(settings.energy_kev)
    # Object pixels along each axis: 1 / (detector pixels · dk), where binning makes dk larger and their number smaller.
    finer_2 = np.array([shape[which] * settings.prepare.bin / frame[which] for which in (0, 1)])
    sizes_2: NDArray[np.float64] | None = None
    dk_2 = _pair(settings.dk_per_angstrom)
    pixel_2 = _pair(settings.detector_pixel_um)
    if settings.detector_distance_m is not None and pixel_2 is not None and wavelength is not None:
        dk_2 = pixel_2 * 1e4 / (wavelength * settings.detector_distance_m * 1e10)
    if settings.pixel_size_angstrom is not None:
        sizes_2 = _said_sizes(settings.pixel_size_angstrom, frame, finer_2, source) / finer_2
    elif dk_2 is not None:
        sizes_2 = 1.0 / (np.array(frame) * dk_2 * finer_2)
    if sizes_2 is not None and abs(sizes_2[0] / sizes_2[1] - 1) > 1e-3:
        whole_2 = sizes_2 * np.array(shape)
        to = [round(float(each)) for each in whole_2 / sizes_2.min()]
        raise DataError(
            f"{source}: patterns of {shape[0]} × {shape[1]} pixels have object pixels of {sizes_2[0]:.4g} × "
            f"{sizes_2[1]:.4g} Å (rows × columns), which must be square: set prepare.pad = {to}, or prepare.crop"
        )
    size = None if sizes_2 is None else float(sizes_2.mean()) if sizes_2[0] != sizes_2[1] else float(sizes_2[0])
    if settings.unit == "pixels":
        return finer_2, size, wavelength
    if size is None:
        raise DataError(
            f"{source}: positions in {settings.unit} need the size of an object pixel: set "
            "data.pixel_size_angstrom, or data.dk_per_angstrom, or the energy, data.detector_pixel_um and "
            'data.detector_distance_m; or positions_unit = "pixels"'
        )
    return np.full(2, ANGSTROM[settings.unit] / size), size, wavelength


def _pair(value: float | tuple[float, float] | None) -> NDArray[np.float64] | None:
    return None if value is None else np.array(value if isinstance(value, tuple) else (value, value))


def _said_sizes(
    said: float | tuple[float, float], frame: tuple[int, ...], finer_2: NDArray[np.float64], source: str
) -> NDArray[np.float64]:
    """Return the object pixel's size for whole frames, along both axes.

    Equal detector pixels give the longer side the smaller object pixel, so one number for a rectangular detector is
    that of one side only: the one which neither a crop nor padding changes.
    """
    if isinstance(said, tuple) or frame[0] == frame[1]:
        pair = _pair(said)
        assert pair is not None
        return pair
    kept = [which for which in (0, 1) if abs(finer_2[which] - 1) < 1e-9]
    if len(kept) == 1:
        side = frame[kept[0]]
        return np.array([said * side / each for each in frame])
    rows, columns = (f"{said:g} × {said * frame[0] / frame[1]:.4g}", f"{said * frame[1] / frame[0]:.4g} × {said:g}")
    longest = max(frame)
    raise DataError(
        f"{source}: pixel_size_angstrom = {said:g} is not enough for a detector of {frame[0]} × {frame[1]} pixels: if "
        f"its pixels are square, those of the object are not, but {rows} Å (rows × columns) or {columns} Å. Give "
        f"dk_per_angstrom instead, or both, pixel_size_angstrom = [rows, columns]; and make patterns square, "
        f"prepare.pad = [{longest}, {longest}], or prepare.crop: then one number is that of the side that is "
        "left as it is"
    )
