"""What the header of an image file says: its size, and where its voxels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from trainkit import DataError

Array = np.ndarray[Any, Any]

_CLOSE = 0.1  # voxels: grids that are at most this far apart count as the same; headers are rounded to float32
_SMALLEST_MM, _LARGEST_MM = 1e-6, 1e5


@attrs.frozen
class Header:
    """The header of a file.

    Attributes:
        path: The file, or the folder if several files are one image.
        shape: (X, Y, Z).
        channels: Number of channels.
        affine: (4, 4), from voxels to mm (right, anterior, superior).
        corrections: Entries of the header that are not allowed, and what is taken instead.
        open_question: What the header leaves open, or contradicts, about where its axes point; None: nothing.
        has_no_form: Whether the header says nothing at all of orientation and origin.
        has_no_spacing: Whether the header does not say how large a voxel is, and 1 mm is taken.
        names: Value of a label, or number of a channel if each is a mask -> the name that the file gives to it.
        conversion: A sentence on the unit of the header's lengths, if it was converted to mm; None: it was not.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int
    affine: Array = attrs.field(eq=False)
    corrections: tuple[str, ...] = ()
    open_question: str | None = None
    has_no_form: bool = False
    has_no_spacing: bool = False
    names: Mapping[int, str] = attrs.field(factory=dict)
    conversion: str | None = None

    @property
    def lacks_geometry(self) -> bool:
        """Whether the header looks as if the tool that wrote it knew nothing of orientation and origin."""
        turned = self.affine[:3, :3] - np.diag(np.diag(self.affine[:3, :3]))
        return self.has_no_form or not (turned.any() or self.affine[:3, 3].any())

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis."""
        x, y, z = spacing_of(self.affine)
        return float(x), float(y), float(z)


def spacing_of(affine: Array) -> Array:
    """Return the size of a voxel along each axis."""
    sizes: Array = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return sizes


def with_spacing(header: Header, spacing_mm: tuple[float, float, float] | None) -> Header:
    """Return a header with the size of a voxel that the recipe gives, if its file says none.

    Args:
        header: The header.
        spacing_mm: Size of a voxel along each axis; None: the recipe gives none.
    """
    if spacing_mm is None or not header.has_no_spacing:
        return header
    affine = header.affine @ np.diag([*spacing_mm, 1.0])
    return attrs.evolve(header, affine=affine, has_no_spacing=False)


def grid_difference(one: Header, other: Header) -> str | None:
    """Return how two grids differ, in words; None if they agree to a tenth of a voxel."""
    if one.shape != other.shape:
        return f"{_size(one)} and {_size(other)} voxels"
    apart = corners_apart(one.affine, other.affine, one.shape)
    if is_close(apart, one.affine):
        return None
    return f"corners are up to {apart:.3g} mm apart (affines differ)"


def is_close(apart_mm: float, affine: Array) -> bool:
    """Return whether a distance is so small, for voxels of this size, that grids count as the same."""
    return apart_mm <= _CLOSE * float(spacing_of(affine).min())


def corners_apart(affine: Array, other: Array, shape: Sequence[int]) -> float:
    """Return the largest distance in mm between the corners of two grids of one shape."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(shape) - 1
    return float(np.sqrt((((affine - other) @ corners.T)[:3] ** 2).sum(axis=0)).max())


def voxel_volume_ml(affine: Array) -> float:
    """Return the volume of a voxel in ml.

    Args:
        affine: (4, 4), from voxels to mm.
    """
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def check_affine(path: Path, affine: Array) -> None:
    """Check that an affine describes voxels.

    Raises:
        DataError: A voxel has no size, or an impossible one, or a value is not finite.
    """
    if np.isfinite(affine).all():
        with np.errstate(all="ignore"):
            sizes = spacing_of(affine)
            flat = not abs(np.linalg.det(affine[:3, :3] / np.maximum(sizes, np.finfo(float).tiny))) > 1e-6
        if sizes.min() >= _SMALLEST_MM and sizes.max() <= _LARGEST_MM and not flat:
            return
    raise DataError(
        f"{path}: the header's affine is unusable: a voxel has no size, or one beyond {_SMALLEST_MM:g} to "
        f"{_LARGEST_MM:g} mm, or a value is not finite"
    )


def ras_from_lps(affine: Array) -> Array:
    """Return an affine to mm (right, anterior, superior), given one to mm (left, posterior, superior)."""
    turned: Array = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return turned


def _size(header: Header) -> str:
    return "×".join(map(str, header.shape))
