"""Where the probe was: rasters, and positions in whatever order and direction a file has them.

Shapes: N = scan points. Positions are (row, column), in any unit.
"""

from __future__ import annotations

from collections.abc import Collection
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

ANGSTROM = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "mm": 1e7, "m": 1e10}
"""Length units that positions may have, in Å."""


def in_unit(step: float, unit: str, pixel_size_angstrom: float | None) -> float | None:
    """Convert a length in pixels to a unit ("pixels" is one too); None: the size of a pixel is not known."""
    if unit == "pixels":
        return step
    return None if pixel_size_angstrom is None else step * pixel_size_angstrom / ANGSTROM[unit]


def likely_unit(step: float, unit: str, pixel_size_angstrom: float | None, room: int) -> str:
    """Return which units would make an unlikely step likely, as advice; empty if no unit does.

    Args:
        step: The typical step in pixels, with the unit as it is.
        unit: The unit of positions that the settings give.
        pixel_size_angstrom: Size of an object pixel; None: not known.
        room: Pixels along a pattern's shorter side: a likely step is between 0.1 and half of them.
    """
    likely = [
        f'positions_unit = "{other}" would make it {pixels:.3g} pixels'
        for other, pixels in likely_steps(step, unit, pixel_size_angstrom, room).items()
    ]
    return "; " + ", ".join(likely) if likely else ""


def likely_steps(step: float, unit: str, pixel_size_angstrom: float | None, room: int) -> dict[str, float]:
    """Return the other units that would give a likely step -> that step in pixels; arguments as for `likely_unit`."""
    said = in_unit(step, unit, pixel_size_angstrom)
    ones = {other: in_unit(1.0, other, pixel_size_angstrom) for other in (*ANGSTROM, "pixels") if other != unit}
    if said is None:
        return {}
    return {other: said / one for other, one in ones.items() if one is not None and 0.1 <= said / one <= room / 2}


def raster(shape: tuple[int, int], step: tuple[float, float], snake: bool) -> NDArray[np.float64]:
    """Return the points of a regular scan in the order in which they were taken, from (0, 0).

    Args:
        shape: Points along the slow axis, the rows, and along the fast one.
        step: Distances along both.
        snake: Whether every second line was scanned backwards.

    Example:
        >>> raster((2, 2), (1.0, 0.5), snake=True).tolist()
        [[0.0, 0.0], [0.0, 0.5], [1.0, 0.5], [1.0, 0.0]]
    """
    slow_RC, fast_RC = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    if snake:
        fast_RC[1::2] = fast_RC[1::2, ::-1]
    points_N2: NDArray[np.float64] = np.stack([slow_RC, fast_RC], axis=-1).reshape(-1, 2) * np.array(step, dtype=float)
    return points_N2


def oriented(
    points_N2: NDArray[np.float64], swapped: bool, flips: Collection[str], rotation_deg: float
) -> NDArray[np.float64]:
    """Return positions along the axes of the detector.

    Args:
        points_N2: Positions.
        swapped: Whether they are (column, row).
        flips: Which of "rows" and "columns" run the other way.
        rotation_deg: How far they are then turned, from the column axis (right) towards the row axis (down).

    Example:
        >>> oriented(np.array([[0.0, 1.0]]), False, (), 90.0).round(12).tolist()
        [[1.0, 0.0]]
    """
    row_N, column_N = points_N2.T[::-1] if swapped else points_N2.T
    row_N = -row_N if "rows" in flips else row_N
    column_N = -column_N if "columns" in flips else column_N
    if rotation_deg:
        angle = radians(rotation_deg)
        row_N, column_N = row_N * cos(angle) + column_N * sin(angle), column_N * cos(angle) - row_N * sin(angle)
    return np.stack([row_N, column_N], axis=1)
