"""Rotating, scaling and bending patches by one resampling of the volume, so that the border shows real tissue.

Shapes: C = channels, X, Y, Z = voxels of the patch, I, J, K = nodes. What is random is drawn by numpy, and everything
else is computed element by element on the device of the volume, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import Affine, Elastic

_UNIT_AT_NODES = 0.5**-1.5  # Σ w² of a cubic B-spline at a node is 1/2 along each axis
_AXES = "xyz"


@attrs.frozen(eq=False)
class Deformation:
    """Where the voxels of a patch come from.

    Attributes:
        matrix: (3, 3), maps a displacement from the patch's centre, in voxels, to the displacement in the volume.
        numbers: What `displacements` needs; empty: the patch is not bent.
    """

    matrix: Array
    numbers: Mapping[str, Array] = attrs.Factory(dict)


def draw_affine(
    settings: Affine, spacing_mm: Sequence[float], rng: np.random.Generator, flat: Sequence[int] = ()
) -> Array | None:
    """Draw whether and how a patch is rotated and scaled; see `rotation_and_scale`. None: it is not.

    Args:
        settings: How much it may be changed.
        spacing_mm: Size of a voxel.
        rng: The same number of values is drawn for every volume.
        flat: Axes along which the volume is one voxel thick. It is rotated about them only: in its plane.
    """
    rotated = rng.random() < settings.probability
    scaled = rotated if settings.scale_probability is None else rng.random() < settings.scale_probability
    if not rotated and not scaled:
        return None
    angles = np.radians(np.array(settings.rotation_degrees)) * rng.uniform(-1, 1, 3)
    growth = np.exp(rng.uniform(*np.log(settings.scale)))
    if flat:
        angles[[axis for axis in range(3) if axis not in flat]] = 0
    factors = np.array([growth if scaled and axis in settings.scaled_axes else 1.0 for axis in range(3)])
    return rotation_and_scale(angles if rotated else np.zeros(3), factors, spacing_mm)


def rotation_and_scale(angles: Array, factors: Array, spacing_mm: Sequence[float]) -> Array:
    """Return a matrix (3, 3) that maps a displacement in the patch, in voxels, to the displacement in the volume.

    It rotates about x, then y, then z, in mm, so that a ball stays a ball even if voxels are not cubes.

    Args:
        angles: Angles about x, y, z, in radians.
        factors: How much larger things become along the patch's x, y, z.
        spacing_mm: Size of a voxel.
    """
    matrix = np.diag(1 / factors)
    for axis, angle in enumerate(angles):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    spacing = np.asarray(spacing_mm)
    in_voxels: Array = matrix * spacing[None, :] / spacing[:, None]
    return in_voxels


def draw_bending(
    settings: Elastic,
    size: Sequence[int],
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    flat: Sequence[int] = (),
) -> dict[str, Array]:
    """Draw a smooth field of displacements: cubic B-splines of independent nodes.

    Args:
        settings: Strength and distance of the nodes.
        size: Voxels of the patch.
        spacing_mm: Size of a voxel.
        rng: The generator.
        flat: Axes along which nothing is displaced, because the volume is one voxel thick.

    Returns:
        ``nodes`` (3, I, J, K), float32 in voxels; and for each axis, the first of the four nodes that a voxel depends
        on, and their weights: ``first_x`` (X,) int64 and ``weights_x`` (X, 4) float32, and so on.
    """
    splines = [_spline(n, settings.node_distance_mm / mm) for n, mm in zip(size, spacing_mm, strict=True)]
    nodes = rng.standard_normal((3, *(count for _, _, count in splines)), dtype=np.float32)
    nodes *= _UNIT_AT_NODES * settings.displacement_mm / np.asarray(spacing_mm, dtype=np.float32)[:, None, None, None]
    nodes[list(flat)] = 0
    numbers: dict[str, Array] = {"nodes": nodes}
    for axis, (first, weights, _) in zip(_AXES, splines, strict=True):
        numbers |= {f"first_{axis}": first, f"weights_{axis}": weights}
    return numbers


def displacements(numbers: Mapping[str, Tensor]) -> Tensor:
    """Return the field of displacements (3, X, Y, Z), in voxels, of what `draw_bending` returned."""
    field = numbers["nodes"]
    for place in (3, 2, 1):  # x last: its slices lie together in memory
        first, weights = (numbers[f"{name}_{_AXES[place - 1]}"] for name in ("first", "weights"))
        shape = [-1 if each == place else 1 for each in range(4)]
        longer = field.index_select(place, first).mul_(weights[:, 0].reshape(shape))
        for k in (1, 2, 3):
            longer += field.index_select(place, first + k).mul_(weights[:, k].reshape(shape))
        field = longer
    return field


def bounds(start: Sequence[int], size: Sequence[int], deformation: Deformation) -> tuple[Array, Array]:
    """Return the smallest and largest position in the volume, along each axis, that a deformed patch may show."""
    half = (np.asarray(size) - 1) / 2
    reach = np.abs(deformation.matrix) @ half
    lowest, highest = np.asarray(start) + half - reach, np.asarray(start) + half + reach
    if deformation.numbers:
        # A spline lies between the least and the greatest of its nodes, and the closer the denser they are.
        nodes = _denser(_denser(deformation.numbers["nodes"])).reshape(3, -1)
        lowest, highest = lowest + nodes.min(axis=1), highest + nodes.max(axis=1)
    return lowest, highest


def source_coordinates(
    start: Sequence[float], size: Sequence[int], matrix: Array, field_3XYZ: Tensor | None, device: torch.device
) -> Tensor:
    """Return the position in a volume of each voxel of the patch, (3, X, Y, Z) in voxels, float32.

    Args:
        start: First voxel of the patch without deformation.
        size: Voxels of the patch.
        matrix: (3, 3), applied about the patch's centre.
        field_3XYZ: Displacements in voxels that are added; None: none.
        device: Where the positions are computed.
    """
    centre = [(n - 1) / 2 for n in size]
    x, y, z = (
        (torch.arange(n, dtype=torch.float32, device=device) - middle).reshape([-1 if a == axis else 1 for a in _AXES])
        for axis, n, middle in zip(_AXES, size, centre, strict=True)
    )
    found = torch.empty((3, *size), dtype=torch.float32, device=device)
    for axis in range(3):
        along_x, along_y, along_z = matrix[axis].tolist()
        plane = (x * along_x + float(start[axis] + centre[axis])) + y * along_y
        torch.add(plane, z * along_z, out=found[axis])
    if field_3XYZ is not None:
        found += field_3XYZ
    return found


def resample(volume_CXYZ: Tensor, sources_3XYZ: Tensor, *, nearest: bool) -> Tensor:
    """Return the volume's values at given positions, float32; outside the volume they are 0.

    Args:
        volume_CXYZ: A volume, at least two voxels long along each axis.
        sources_3XYZ: Position of each voxel of the patch, in voxels of the volume.
        nearest: Whether to take the nearest voxel instead of interpolating between eight.
    """
    places = torch.empty((*sources_3XYZ.shape[1:], 3), dtype=torch.float32, device=volume_CXYZ.device)
    for axis, n in enumerate(volume_CXYZ.shape[1:]):  # grid_sample wants the last axis first, from −1 to 1
        torch.mul(sources_3XYZ[axis], 2 / (n - 1), out=places[..., 2 - axis]).sub_(1)
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(volume_CXYZ.float()[None], places[None], mode=mode, align_corners=True)[0]


def _spline(n: int, distance: float) -> tuple[Array, Array, int]:
    """Return cubic B-splines whose nodes are ``distance`` voxels apart, centred.

    Returns:
        For each voxel, the first of the four nodes that it depends on (n,) and their weights (n, 4); the number of
        nodes.
    """
    count = int(np.ceil((n - 1) / distance)) + 4
    place = (np.arange(n) - (n - 1) / 2) / distance + (count - 1) / 2
    first = np.clip(np.floor(place).astype(np.int64) - 1, 0, count - 4)
    apart = np.abs(place[:, None] - (first[:, None] + np.arange(4)))
    near = 2 / 3 - apart**2 + apart**3 / 2
    far = np.clip(2 - apart, 0, None) ** 3 / 6
    return first, np.where(apart < 1, near, far).astype(np.float32), count


def _denser(nodes_3IJK: Array) -> Array:
    """Return the nodes of the same cubic B-spline at half the distance, where the spline is defined."""
    for axis in range(1, 4):
        nodes = np.moveaxis(nodes_3IJK, axis, 0)
        at = (nodes[:-2] + 6 * nodes[1:-1] + nodes[2:]) / 8
        between = (nodes[:-1] + nodes[1:]) / 2
        denser = np.empty((len(at) + len(between), *nodes.shape[1:]), np.float32)
        denser[0::2], denser[1::2] = between, at
        nodes_3IJK = np.moveaxis(denser, 0, axis)
    return nodes_3IJK
