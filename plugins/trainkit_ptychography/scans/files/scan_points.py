"""The points of a scan, from wherever the settings say: arrays, a raster, or a file of positions.

Shapes: N = scan points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.array_file import ArrayFile, ReaderHints, in_words, several
from trainkit_ptychography.scans.files.arrays import as_points
from trainkit_ptychography.scans.files.kind import FileDiffraction, UntoldPoints
from trainkit_ptychography.scans.files.points_file import read_points
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import Frames, JoinedFrames
from trainkit_ptychography.scans.positions import raster

_MOST_LISTED = 10


class ScanPoints(NamedTuple):
    """Positions.

    Attributes:
        points_N2: All of them, as their file has them.
        dtype: The dtype in which it holds them.
        settings: The settings, as they hold for these positions.
        doubts: What is not certain about them.
        of_patterns: Whether each is said to be that of a pattern of the file, and not of a point of the scan.
    """

    points_N2: NDArray[np.float64]
    dtype: np.dtype[Any] | None
    settings: FileDiffraction
    doubts: Sequence[str] = ()
    of_patterns: bool = False


def scan_points(
    settings: FileDiffraction, files: Sequence[ArrayFile], frames: Frames | JoinedFrames, hints: ReaderHints
) -> ScanPoints:
    """Return the positions, from wherever the settings say."""
    if settings.positions_path is not None:
        return _points_of_another_file(settings, len(frames))
    if hints.points_N2 is not None:
        return ScanPoints(hints.points_N2, hints.positions_dtype, settings)
    if settings.raster is not None:
        points_N2 = _raster(settings, frames, files[0].source)
        return ScanPoints(points_N2, None, settings, _doubts_about_joined_rasters(settings, frames))
    assert settings.positions is not None  # each reader names them by now
    dtypes = [file.stored(name).dtype for file in files for name in several(settings.positions)]
    points_N2 = named_points(settings.positions, files, frames.lengths)
    return ScanPoints(points_N2, min(dtypes, key=lambda each: each.itemsize), settings)


def _points_of_another_file(settings: FileDiffraction, num_frames: int) -> ScanPoints:
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
        changed = attrs.evolve(
            changed, positions_order="row_column", positions_flip=(), positions_rotation_deg=0.0, positions_scale=1.0
        )
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
    return ScanPoints(points_N2, found.dtype, changed, doubts, found.numbers_N is not None)


def named_points(
    names: str | tuple[str, ...], files: Sequence[ArrayFile], lengths: Sequence[int] = ()
) -> NDArray[np.float64]:
    """Return the points of one array, of as many arrays as there are of patterns, or of [rows, columns].

    Args:
        names: The arrays.
        files: The files, each of which has all of them.
        lengths: Number of patterns in each array of patterns, of all files.
    """
    named, found, wanted = several(names), [], list[int]()
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
    check_partners("positions", [len(each) for each in found], wanted, files[0].source)
    return np.concatenate(found)


def _are_points(arrays: Sequence[NDArray[Any]], lengths: Sequence[int]) -> bool:
    """Return whether each of several arrays holds (row, column) of so many points, and none rows or columns alone."""
    if all(array.ndim > 1 and array.shape[-1] == 2 for array in arrays):
        return True
    return all(array.shape == (2, length) for array, length in zip(arrays, lengths, strict=True))


def _raster(settings: FileDiffraction, frames: Frames | JoinedFrames, source: str) -> NDArray[np.float64]:
    given = settings.raster
    assert given is not None  # only asked for then
    if isinstance(given, UntoldPoints):
        return raster((1, frames.shape[0]), (1.0, 1.0), False)
    shape = given.shape
    if shape is None:
        if len(frames.scan_shape) != 2:
            raise DataError(
                f"{source}: {in_words(settings.patterns)} has one scan axis ({frames.shape[0]} points), so the raster "
                "needs its shape = [slow, fast]"
            )
        shape = (frames.scan_shape[0], frames.scan_shape[1])
    if shape[0] * shape[1] != frames.shape[0] and not (settings.leave_out.names_any() or settings.pairing.names_any()):
        few = min(shape[0] * shape[1], frames.shape[0])
        raise DataError(
            f"{source}: a raster of {shape[0]} × {shape[1]} has {shape[0] * shape[1]} points, but there are "
            f"{frames.shape[0]} patterns; change raster.shape, or leave out the last ones, if these have no partner: "
            f"{Lines(leave_out=settings.leave_out).leave_out(points=[f'{few}:'])}, and check --data looks "
            "whether one was lost on the way"
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


def check_partners(what: str, held: Sequence[int], patterns: Sequence[int], source: str) -> None:
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


def last_place(points_N2: NDArray[np.float64], dtype: np.dtype[Any] | None) -> float:
    """Return the last place of the largest position, in the dtype in which the file holds it."""
    if dtype is None or dtype.kind != "f" or not np.isfinite(points_N2).any():
        return 0.0
    largest = np.abs(points_N2[np.isfinite(points_N2)]).max()
    return float(np.spacing(np.asarray(largest, dtype.newbyteorder("="))))
