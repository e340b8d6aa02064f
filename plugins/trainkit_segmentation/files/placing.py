"""Puts voxels of one file onto the grid of another, where both have the same voxels in another order of axes."""

from __future__ import annotations

import attrs
import numpy as np

from trainkit_segmentation.files.header import Array, Header, corners_apart, is_close


@attrs.frozen
class Placement:
    """Where the voxels of one grid are in another.

    Attributes:
        axes: For each axis of the other grid, the axis of this one that runs along it.
        flipped: The axes of the other grid along which this one runs backwards.
        start: Its first voxel in the other grid.
        size: Its voxels along the axes of the other grid.
        shape: Voxels of the other grid.
    """

    axes: tuple[int, int, int]
    flipped: tuple[int, ...]
    start: tuple[int, int, int]
    size: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def is_whole(self) -> bool:
        """Whether both grids have the same voxels."""
        return self.start == (0, 0, 0) and self.size == self.shape

    @property
    def is_inside(self) -> bool:
        """Whether all voxels are voxels of the other grid."""
        ends = np.add(self.start, self.size)
        return min(self.start) >= 0 and bool((ends <= self.shape).all())

    def apply(self, voxels_CXYZ: Array) -> Array:
        """Return the voxels (C, X, Y, Z) on the other grid, 0 where there are none."""
        turned: Array = np.transpose(voxels_CXYZ, (0, *(1 + axis for axis in self.axes)))
        turned = np.flip(turned, tuple(1 + axis for axis in self.flipped))
        if self.is_whole:
            return turned
        placed: Array = np.zeros((len(turned), *self.shape), turned.dtype)
        x, y, z = (slice(start, start + size) for start, size in zip(self.start, self.size, strict=True))
        placed[:, x, y, z] = turned
        return placed


def placement(onto: Header, header: Header) -> Placement | None:
    """Return where the voxels of a file are on the grid of another; None, if they are between its voxels.

    Args:
        onto: The header of the other file.
        header: The header of the file.
    """
    between = np.linalg.solve(onto.affine, header.affine)
    turn = np.rint(between[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return None
    a, b, c = (int(np.abs(row).argmax()) for row in turn)
    size = (header.shape[a], header.shape[b], header.shape[c])
    first = np.rint(between[:3, 3])
    exact = np.eye(4)
    exact[:3, :3], exact[:3, 3] = turn, first
    if not is_close(corners_apart(onto.affine @ exact, header.affine, header.shape), onto.affine):
        return None
    flipped = tuple(axis for axis in range(3) if turn[axis].sum() < 0)
    x, y, z = (int(first[axis]) - (size[axis] - 1 if axis in flipped else 0) for axis in range(3))
    return Placement((a, b, c), flipped, (x, y, z), size, onto.shape)
