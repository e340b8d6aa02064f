"""Shifts of whole scans of one specimen against each other, as a recipe declares them.

Shapes: N = scan points, R = scans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


def shifts_of_points(
    shifts_angstrom: Sequence[tuple[float, float]],
    scan_N: NDArray[np.int64] | None,
    pixel_size_angstrom: float | None,
    source: str,
) -> NDArray[np.float64] | float:
    """Return by how many pixels each point is moved (N, 2); 0.0: no shifts are declared.

    Args:
        shifts_angstrom: (rows, columns) of each scan.
        scan_N: The scan of each point; None: there is one.
        pixel_size_angstrom: Size of an object pixel.
        source: What messages call the data.

    Raises:
        DataError: There are not as many shifts as scans, or the pixel size is not known.
    """
    if not shifts_angstrom:
        return 0.0
    num = 1 if scan_N is None else int(scan_N.max()) + 1
    if scan_N is None or num != len(shifts_angstrom):
        raise DataError(
            f"{source} is made of {num} scans, and scan_shifts_angstrom has {len(shifts_angstrom)} shifts: give one "
            "(rows, columns) for each of several scans"
        )
    if pixel_size_angstrom is None:
        raise DataError(f"{source}: scan_shifts_angstrom needs the size of a pixel: say it (pixel_size_angstrom)")
    shifts_N2: NDArray[np.float64] = np.asarray(shifts_angstrom, dtype=np.float64)[scan_N] / pixel_size_angstrom
    return shifts_N2
