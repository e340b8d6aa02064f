"""From a case's own voxel grid to the grid that the network works on, and back.

Shapes: C = channels, X, Y, Z = voxels of either grid. Whole axes are flipped, permuted and cropped, and stretched such
that the outer edges keep their position. So the way back is exact up to the interpolation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor
from torch.nn import functional

from trainkit_segmentation.files.header import Array

_FAR = 1e4  # a decisive score: float16 can represent it, and it is far from any score that a network gives


@attrs.frozen
class Grid:
    """Position of a preprocessed volume in the case's own grid.

    Attributes:
        own_shape: Voxels of the case's files.
        affine: (4, 4) of the case's files, from voxels to mm.
        axes: For each axis of the preprocessed grid, the axis of the case's own grid that it runs along.
        flipped: For each axis of the case's own grid, whether it was reversed.
        box: For each axis of the preprocessed grid, the first voxel that was kept, and the first after those.
        shape: Voxels of the preprocessed grid.
    """

    own_shape: tuple[int, int, int]
    affine: Array = attrs.field(eq=False)
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    box: tuple[tuple[int, int], ...]
    shape: tuple[int, int, int]

    @property
    def own_spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along the case's own axes."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along the axes of the preprocessed grid."""
        own = self.own_spacing_mm
        x, y, z = (
            own[axis] * (stop - start) / n
            for axis, (start, stop), n in zip(self.axes, self.box, self.shape, strict=True)
        )
        return x, y, z

    @property
    def is_own(self) -> bool:
        """Whether the preprocessed grid is the case's own."""
        whole = tuple((0, n) for n in self.own_shape)
        return self.axes == (0, 1, 2) and not any(self.flipped) and self.box == whole and self.shape == self.own_shape

    def to_json(self) -> dict[str, Any]:
        """Return the grid as JSON values."""
        return attrs.asdict(self) | {"affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Grid:
        """Read what `to_json` returned."""
        return cls(
            own_shape=_three(content["own_shape"]),
            affine=np.array(content["affine"]),
            axes=_three(content["axes"]),
            flipped=_three(content["flipped"]),
            box=tuple((start, stop) for start, stop in content["box"]),
            shape=_three(content["shape"]),
        )

    def turn(self, own_CXYZ: Array) -> Array:
        """Flip and permute the axes of an array on the case's own grid; a view."""
        # An axis of one voxel is not flipped: a view with a negative stride is of no use to torch.
        flipped = tuple(1 + axis for axis in range(3) if self.flipped[axis] and self.own_shape[axis] > 1)
        turned: Array = np.flip(own_CXYZ, flipped)
        return turned.transpose(0, *(1 + axis for axis in self.axes))

    def cut(self, turned_CXYZ: Array) -> Array:
        """Return the part of a turned array that was kept; a view."""
        return turned_CXYZ[(slice(None), *(slice(start, stop) for start, stop in self.box))]

    def to_own(self, scores_KXYZ: Tensor, background: int | None) -> Tensor:
        """Resample class scores onto the case's own grid.

        Args:
            scores_KXYZ: Scores on the preprocessed grid, floating point.
            background: The channel that is highest where voxels were cropped; None: every channel is low there.

        Returns:
            (K, X, Y, Z) of the case's own grid.
        """
        kept = tuple(stop - start for start, stop in self.box)
        turned = stretch(scores_KXYZ, kept)
        whole = tuple(self.own_shape[axis] for axis in self.axes)
        if kept != whole:
            full = turned.new_full((len(turned), *whole), -_FAR)
            if background is not None:
                full[background] = _FAR
            full[(slice(None), *(slice(start, stop) for start, stop in self.box))] = turned
            turned = full
        own = turned.permute(0, *(1 + place for place in np.argsort(self.axes)))
        return own.flip([1 + axis for axis in range(3) if self.flipped[axis]]).contiguous()


def plane_to_own(grid: Grid, volume_XYZ: Tensor, axis: int, index: int) -> Tensor:
    """Return one plane of what `Grid.to_own` makes of a volume, for a small part of the work.

    Args:
        grid: The grid of the volume.
        volume_XYZ: A channel of a preprocessed image, floating point.
        axis: The axis of the case's own grid that the plane lies across.
        index: Voxel of the case's own grid along this axis.

    Returns:
        The plane with the other two axes of the case's own grid, in their order; low where voxels were cropped.
    """
    place = grid.axes.index(axis)
    index = grid.own_shape[axis] - 1 - index if grid.flipped[axis] else index
    start, stop = grid.box[place]
    length = grid.shape[place]
    at = min(max((index - start + 0.5) * length / (stop - start) - 0.5, 0.0), length - 1.0)
    below = int(at)
    above = min(below + 1, length - 1)
    slab_XYZ = torch.lerp(
        volume_XYZ.narrow(place, below, 1).float(), volume_XYZ.narrow(place, above, 1).float(), at - below
    )
    if not start <= index < stop:
        slab_XYZ = torch.full_like(slab_XYZ, -_FAR)

    def with_one(lengths: Sequence[Any], at_axis: int, one: Any) -> tuple[Any, Any, Any]:
        return _three([one if each == at_axis else length for each, length in enumerate(lengths)])

    thin = attrs.evolve(
        grid,
        own_shape=with_one(grid.own_shape, axis, 1),
        box=with_one(grid.box, place, (0, 1)),
        shape=with_one(grid.shape, place, 1),
    )
    return thin.to_own(slab_XYZ[None], background=None)[0].select(axis, 0)


def stretch(volume_CXYZ: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample linearly to another number of voxels over the same extent, in at least float32; the dtype is kept."""
    if tuple(volume_CXYZ.shape[1:]) == tuple(shape):
        return volume_CXYZ
    wide = volume_CXYZ if volume_CXYZ.dtype == torch.float64 else volume_CXYZ.float()
    stretched = functional.interpolate(wide[None], size=list(shape), mode="trilinear", align_corners=False)[0]
    return stretched.to(volume_CXYZ.dtype)


def whole_grid(own_shape: tuple[int, int, int], affine: Array, orientation: str | None) -> Grid:
    """Return the grid of a case whose axes are turned, and of which nothing is cropped or resampled."""
    axes, flipped = orientation_of(affine, orientation)
    turned = _three([own_shape[axis] for axis in axes])
    return Grid(own_shape, affine, axes, flipped, tuple((0, n) for n in turned), turned)


def nonzero_box(image_CXYZ: Array) -> tuple[tuple[int, int], ...] | None:
    """Return the first voxel along each axis at which a channel is not 0, and the first after those; None: none is."""
    anything = (image_CXYZ != 0).any(axis=0)
    box = []
    for axis in range(3):
        inside = np.flatnonzero(anything.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(inside):
            return None
        box.append((int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def orientation_of(affine: Array, wanted: str | None) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return ``axes`` and ``flipped`` of a `Grid` whose axes point as wanted, for example "RAS"; None: no change.

    For oblique axes, the nearest such turn is returned.
    """
    if wanted is None:
        return (0, 1, 2), (False, False, False)
    change: Array = ornt_transform(io_orientation(affine), axcodes2ornt(wanted))  # type: ignore[no-untyped-call]
    axes = [0, 0, 0]
    for own, (target, _) in enumerate(change):
        axes[int(target)] = own
    return _three(axes), _three([bool(direction < 0) for _, direction in change])


def left_right_axes(affines: Iterable[Array], orientation: str | None) -> set[int]:
    """Return the axes of preprocessed grids that go from left to right, or back.

    Args:
        affines: From voxels of each case's own grid to mm.
        orientation: The orientation that cases are brought to, for example "RAS"; None: each keeps its own.
    """
    codes = {orientation} if orientation else {axes_of(affine) for affine in affines}
    return {axis for code in codes for axis, letter in enumerate(code) if letter in "LR"}


def axes_of(affine: Array) -> str:
    """Return where the axes of a grid point; "RAS": to the right, to the front, and up."""
    return "".join(map(str, aff2axcodes(affine)))  # type: ignore[no-untyped-call]


def _three(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    x, y, z = values
    return x, y, z
