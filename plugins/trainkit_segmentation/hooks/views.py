"""How a radiologist looks at a volume: its three planes, which way round they are shown, and where they are.

The patient's front or head is up, and the patient's right is on the left of the picture, as if one stood in front of
the patient or at the feet. A plane from the side has the front on the left.

Shapes: X, Y, Z = voxels along the file's axes; H, W = rows and columns of a plane as it is shown.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from trainkit_segmentation.files.header import Array, spacing_of

_NAMES = ("sagittal", "coronal", "axial")  # by the direction that the plane lies across: right, anterior, superior
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # of the negative and the positive direction
_BESIDE = float(np.sin(np.radians(22.5)))  # a direction with a larger share of another one has its letter as well
_OBLIQUE_DEGREES = 5.0  # planes that are turned further are called oblique


@attrs.frozen
class View:
    """One of the three planes of a grid.

    Attributes:
        name: "axial", "coronal" or "sagittal", and how far it is turned if that is much; "plane" where the file does
            not say how its axes lie.
        across: The file's axis that the plane lies across.
        columns: The file's axis that is shown from left to right.
        rows: The file's axis that is shown from top to bottom.
        mirrored: Whether voxels are shown in reverse order along columns and rows.
        left, right, top, bottom: Letters of the directions that the four edges show; "" if unknown. A direction between
            two has both letters, the nearer one first.
        spacing_mm: Width and height of a voxel as shown.
        normal: Unit vector across the plane in mm (right, anterior, superior), which points right, to the front or up.
    """

    name: str
    across: int
    columns: int
    rows: int
    mirrored: tuple[bool, bool]
    left: str
    right: str
    top: str
    bottom: str
    spacing_mm: tuple[float, float]
    normal: Array = attrs.field(eq=False)

    def seen(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a plane (H, W) as it is shown, given with the file's axes in their order."""
        rows_first = plane if self.rows < self.columns else plane.T
        by_column, by_row = (-1 if mirrored else 1 for mirrored in self.mirrored)
        return np.ascontiguousarray(rows_first[::by_row, ::by_column])

    def position(self, index: int, affine: Array, has_form: bool) -> str:
        """Return where a plane is, in words: how far from the origin, and the voxel along the file's axis.

        Args:
            index: Voxel along the file's axis, counted from 0.
            affine: (4, 4) of the grid.
            has_form: Whether the file says how its axes lie.
        """
        voxel = f"{'ijk'[self.across]} = {index}"
        if not has_form:
            return voxel
        distance_mm = float(self.normal @ (affine[:3, :3][:, self.across] * index + affine[:3, 3]))
        low, high = _LETTERS[int(np.abs(self.normal).argmax())]
        return f"{high if distance_mm >= 0 else low} {abs(distance_mm):.1f} mm, {voxel}"


def views(affine: Array, has_form: bool = True) -> tuple[View, View, View]:
    """Return the axial, the coronal and the sagittal plane of a grid, or those nearest to them.

    Args:
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        has_form: Whether the file says how its axes lie. If not, planes are shown as if the affine was right, without
            letters.
    """
    spacing = spacing_of(affine)
    directions = affine[:3, :3] / spacing  # columns: unit vectors of the file's axes
    nearest = io_orientation(affine)  # type: ignore[no-untyped-call]
    own_axis = {int(world): own for own, (world, _) in enumerate(nearest)}
    points_up = {int(world): bool(sign > 0) for world, sign in nearest}

    def view(across: int) -> View:
        to_right, up = (world for world in range(3) if world != across)
        columns, rows = own_axis[to_right], own_axis[up]
        normal = np.cross(directions[:, columns], directions[:, rows])
        normal /= np.linalg.norm(normal) * np.sign(normal[np.abs(normal).argmax()])
        # The picture shows what points to the right or the front on its left, and to the front or the head at its top.
        mirrored = points_up[to_right], points_up[up]
        leftwards, upwards = (
            directions[:, own] * (1 if points_up[world] else -1) for world, own in ((to_right, columns), (up, rows))
        )
        name = _name(across, normal) if has_form else "plane"
        left, right, top, bottom = (_letters(each) for each in (leftwards, -leftwards, upwards, -upwards))
        return View(
            name,
            own_axis[across],
            columns,
            rows,
            mirrored,
            *((left, right, top, bottom) if has_form else ("", "", "", "")),
            (float(spacing[columns]), float(spacing[rows])),
            normal,
        )

    return view(2), view(1), view(0)


def _name(across: int, normal: Array) -> str:
    degrees = float(np.degrees(np.arccos(min(1.0, abs(normal[across])))))
    return _NAMES[across] + (f" ({degrees:.0f}° oblique)" if degrees > _OBLIQUE_DEGREES else "")


def _letters(direction: Array) -> str:
    """Return the letters of a direction, the nearest first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    kept = [axis for axis in order if abs(direction[axis]) > _BESIDE] or [order[0]]
    return "".join(_LETTERS[axis][int(direction[axis] > 0)] for axis in kept)
