"""The ways in which the points of a raster can follow one another in a file, besides the one that a recipe tells.

A raster is recognised by its points, so it does not matter whether the recipe tells a raster or an array of positions.

Shapes: N = scan points.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.positions import ANGSTROM, raster
from trainkit_ptychography.scans.scan import Recording

_OFF = 0.25  # of a step, root mean square: a point further from its place is none of a raster
_SKEW = 0.2  # cosine of the angle between the axes of a raster
_POINTS = 4096  # are enough to recognise a raster by


@attrs.frozen(eq=False)
class Walk:
    """A way to walk a raster.

    Attributes:
        words: The difference from what is told, as a sentence goes on.
        positions_N2: Where the patterns were then taken, in pixels.
        shape: Points along the slow and the fast axis.
        step: Distances along both.
        unit: Their unit.
        snake: Whether every second line is walked backwards.
        axes_22: The slow and the fast axis, as columns, along the axes of the scan as it is told.
        exchanged: Whether the file's two scan axes have to be read the other way round.
        is_stored_as_raster: Whether it has two scan axes.
    """

    words: str
    positions_N2: NDArray[np.float64]
    shape: tuple[int, int]
    step: tuple[float, float]
    unit: str
    snake: bool
    axes_22: NDArray[np.float64]
    exchanged: bool = False
    is_stored_as_raster: bool = False

    def line(self, data: FileDiffraction) -> str:
        """Return the lines to paste, or what to do where no setting does it."""
        if self.exchanged and not self.is_stored_as_raster:
            return "reverse every second column in the file"
        slow, fast = (each / data.positions_scale for each in self.step)
        step = f"{slow:.6g}" if slow == fast else f"[{slow:.6g}, {fast:.6g}]"
        snake = ", snake = true" if self.snake else ""
        line = f"paste [data] raster = {{ step = {step}, shape = [{self.shape[0]}, {self.shape[1]}]{snake} }}"
        if data.raster is None:
            line += " in place of positions"
        if self.unit != data.positions_unit:
            line += f', [data] positions_unit = "{self.unit}"'
        if self.exchanged:
            axes = (data.pattern_axes or "rcyx").translate(str.maketrans("rc", "cr"))
            line += f', [data] pattern_axes = "{axes}"'
        return line


def other_walks(recording: Recording) -> Iterator[Walk]:
    """Yield the other ways to walk the raster of a scan; none, if its points are not those of a raster."""
    scan, patterns = recording.scan, recording.intensities_NYX
    if not isinstance(patterns, PreparedPatterns):
        return
    total = len(scan.positions_N2) + sum(scan.left_out.values())
    numbers_N = np.arange(total) if scan.points_N is None else scan.points_N
    found = as_raster(scan.positions_N2, numbers_N, total)
    if found is None:
        return
    (rows, columns), is_snake, origin_2, axes_22 = found
    if scan.positions_unit == "pixels":
        finer = (scan.prepare.bin if scan.prepare else 1) / np.array(patterns.frame_shape)
        scale_2 = np.array(patterns.shape[1:]) * finer
    else:
        scale_2 = np.full(2, ANGSTROM[scan.positions_unit] / (scan.pixel_size_angstrom or 1.0))
    told_22 = axes_22 / scale_2[:, None]
    steps_2 = np.hypot(*told_22)
    told_22 = told_22 / steps_2
    slow, fast = (float(f"{each:.6g}") for each in steps_2)

    def walk(words: str, places_N2: NDArray[np.float64], snake: bool, turned: bool, exchanged: bool = False) -> Walk:
        return Walk(
            words,
            origin_2 + places_N2[numbers_N] @ axes_22.T,
            (columns, rows) if turned else (rows, columns),
            (fast, slow) if turned else (slow, fast),
            scan.positions_unit,
            snake,
            told_22[:, ::-1] if turned else told_22,
            exchanged,
            len(patterns.scan_shape) == 2,
        )

    one = (1.0, 1.0)
    words = "no line of the raster runs" if is_snake else "every second line of the raster runs"
    yield walk(f"{words} backwards", raster((rows, columns), one, not is_snake), not is_snake, False)
    by_columns_N2 = raster((columns, rows), one, True)[:, ::-1]
    reversed_N2 = by_columns_N2.reshape(columns, rows, 2).transpose(1, 0, 2).reshape(-1, 2)
    yield walk("every second column of the raster is reversed", reversed_N2, True, True, exchanged=True)
    if rows != columns:  # of a square, these are the others with the axes exchanged
        lines = f"the lines of the raster have {rows} points instead of {columns}"
        yield walk(lines, raster((columns, rows), one, False)[:, ::-1], False, True)
        yield walk(f"{lines}, and every second one runs backwards", by_columns_N2, True, True)


_Raster = tuple[tuple[int, int], bool, NDArray[np.float64], NDArray[np.float64]]


def as_raster(points_N2: NDArray[np.float64], numbers_N: NDArray[np.int64], total: int) -> _Raster | None:
    """Return shape, whether it is a snake, the first point, and the slow and fast axis as columns; None: no raster.

    Args:
        points_N2: The points.
        numbers_N: Which points of the raster they are.
        total: How many points it has.
    """
    best, least = None, _OFF
    some = np.linspace(0, len(points_N2) - 1, min(len(points_N2), _POINTS)).astype(np.int64)
    points_N2, numbers_N = points_N2[some], numbers_N[some]
    for columns in divisors(total):
        shape = (total // columns, columns)
        for snake in (False, True):
            places_N2 = raster(shape, (1.0, 1.0), snake)[numbers_N]
            terms_N3 = np.column_stack([np.ones(len(places_N2)), places_N2])
            fitted_32: NDArray[np.float64] = np.linalg.lstsq(terms_N3, points_N2)[0].astype(np.float64)
            steps_2 = np.hypot(*fitted_32[1:].T)
            if not steps_2.min() > 0 or abs(fitted_32[1] @ fitted_32[2]) > _SKEW * steps_2.prod():
                continue
            off = np.sqrt(np.square(points_N2 - terms_N3 @ fitted_32).sum(axis=1).mean()) / steps_2.min()
            if off < least:
                best, least = (shape, snake, fitted_32[0], fitted_32[1:].T), off
    return best


def divisors(total: int) -> list[int]:
    """Return the divisors of a number, without 1 and itself."""
    small = [each for each in range(2, isqrt(total) + 1) if total % each == 0]
    return sorted({*small, *(total // each for each in small)})
