"""Where patterns were taken: from positions to patches of the object, and which part of a displacement is a gauge.

Shapes: N = scan points, H, W = rows and columns of the object, Y, X = those of the detector.
Units: pixels of the object; positions are (row, column).
"""

from __future__ import annotations

from math import atan2, cos, hypot, sin
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Placement(NamedTuple):
    """Where the patches of a scan lie in an object made to hold them.

    Attributes:
        corner_N2: First row and column of each patch: the nearest integers.
        remainder_N2: What rounding left, within ±0.5: the probe's shift within its patch.
        shape_HW: Rows and columns that the object needs.
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0].
    """

    corner_N2: NDArray[np.int64]
    remainder_N2: NDArray[np.float64]
    shape_HW: tuple[int, int]
    origin_2: NDArray[np.float64]


class Distortion(NamedTuple):
    """A linear change of a scan as three steps: it is first sheared, then scaled, then rotated.

    Attributes:
        rotation_rad: From the column axis (right) towards the row axis (down), as azimuths are counted everywhere.
        scale_rows: Factor by which distances between rows grow.
        scale_columns: Factor by which distances between columns grow.
        shear: By how much rows grow along a column step.
    """

    rotation_rad: float
    scale_rows: float
    scale_columns: float
    shear: float


def distortion(linear_22: NDArray[np.floating]) -> Distortion:
    """Decompose a matrix that maps (row, column) onto (row, column): rotation @ [[rows, shear], [0, columns]]."""
    (a, b), (c, d) = linear_22.tolist()
    angle = atan2(-c, a)
    upper, lower = cos(angle) * b - sin(angle) * d, sin(angle) * b + cos(angle) * d
    return Distortion(angle, hypot(a, c), lower, upper)


def place(positions_N2: NDArray[np.float64], shape_YX: tuple[int, int], margin: int) -> Placement:
    """Lay patches around positions, and an object around the patches.

    Integer positions stay integers: their remainders are exactly 0.

    Args:
        positions_N2: Where the probe's centre, pixel (Y//2, X//2), was; any origin.
        shape_YX: Rows and columns of a patch.
        margin: Pixels around the outermost patches, for positions that will move.
    """
    offset_2 = np.floor(positions_N2.min(axis=0)) - margin
    start_N2 = positions_N2 - offset_2
    corner_N2 = np.rint(start_N2).astype(np.int64)
    height, width = (int(last + 1 + size + margin) for last, size in zip(corner_N2.max(axis=0), shape_YX, strict=True))
    origin_2 = offset_2 - np.array([size // 2 for size in shape_YX])
    return Placement(corner_N2, start_N2 - corner_N2, (height, width), origin_2)


class AffineMotion:
    """Finds the affine motion of a scan that fits displacements of its points best (least squares).

    Rotation, scale, shear and shift of all positions can be traded for the same change of object and probe: patterns
    hardly tell them apart, so an unconstrained fit drifts along them.

    Args:
        positions_N2: The points, before they moved.
    """

    def __init__(self, positions_N2: Tensor) -> None:
        points_N3 = torch.cat([positions_N2.double(), torch.ones_like(positions_N2[:, :1], dtype=torch.float64)], dim=1)
        # Centred and scaled, so that the fit is as exact far from the origin; pinv, so that a line of points is no
        # error.
        self._centre_2, self._spread = points_N3[:, :2].mean(0), points_N3[:, :2].std().clamp_min(1e-12)
        points_N3[:, :2] = (points_N3[:, :2] - self._centre_2) / self._spread
        self._points_N3, self._inverse_3N = points_N3, torch.linalg.pinv(points_N3)

    def within(self, displacement_N2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the motion at each point (N, 2), and its matrix (2, 3), in float64.

        Args:
            displacement_N2: How far each point has moved: about matrix @ (row, column, 1).
        """
        matrix_32 = self._inverse_3N @ displacement_N2.double()
        linear_22 = matrix_32[:2].T / self._spread
        shift_2 = matrix_32[2] - linear_22 @ self._centre_2
        return self._points_N3 @ matrix_32, torch.cat([linear_22, shift_2[:, None]], dim=1)
