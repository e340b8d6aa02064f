"""Rotating, scaling and bending patches by one resampling of the volume, so that the border shows real tissue.

Shapes: C = channels, X, Y, Z = voxels of the patch. Everything is computed element by element or in one thread, so the
bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import Affine, Elastic
from trainkit_segmentation.patches.cutting import cut

_UNIT_AT_NODES = 0.5**-1.5  # Σ w² of a cubic B-spline at a node is 1/2 along each axis


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


def draw_displacements(
    settings: Elastic, size: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator
) -> Array:
    """Draw a smooth field of displacements (3, X, Y, Z), in voxels: cubic B-splines of independent nodes."""
    splines = [_spline(n, settings.node_distance_mm / mm) for n, mm in zip(size, spacing_mm, strict=True)]
    nodes = rng.standard_normal((3, *(spline.shape[1] for spline in splines)), dtype=np.float32)
    nodes *= _UNIT_AT_NODES * settings.displacement_mm / np.asarray(spacing_mm, dtype=np.float32)[:, None, None, None]
    x, y, z = splines
    field: Array = np.einsum("xi,cijk->cxjk", x, nodes, optimize=False)
    field = np.einsum("yj,cxjk->cxyk", y, field, optimize=False)
    field = np.einsum("zk,cxyk->cxyz", z, field, optimize=False)
    return field


def source_coordinates(start: Sequence[int], size: Sequence[int], matrix: Array | None, field: Array | None) -> Array:
    """Return the position in the volume of each voxel of the patch, (3, X, Y, Z) in voxels, float32.

    Args:
        start: First voxel of the patch without deformation.
        size: Voxels of the patch.
        matrix: (3, 3), applied about the patch's centre; None: none.
        field: (3, X, Y, Z), displacements in voxels that are added; None: none.
    """
    centre = (np.asarray(size) - 1) / 2
    x, y, z = (
        (np.arange(n) - middle).astype(np.float32).reshape([-1 if axis == own else 1 for axis in range(3)])
        for own, (n, middle) in enumerate(zip(size, centre, strict=True))
    )
    turned = (np.eye(3) if matrix is None else matrix).astype(np.float32)
    origin = (np.asarray(start) + centre).astype(np.float32)
    found = np.empty((3, *size), dtype=np.float32)
    for axis in range(3):
        found[axis] = (turned[axis, 0] * x + origin[axis]) + turned[axis, 1] * y + turned[axis, 2] * z
    if field is not None:
        found += field
    return found


def resample(volume_CXYZ: Tensor, sources_3XYZ: Array, out_CXYZ: Tensor, *, nearest: bool) -> None:
    """Fill a patch with the volume's values at given positions; outside the volume they are 0.

    Args:
        volume_CXYZ: A whole volume; only the block that is needed is read.
        sources_3XYZ: Position of each voxel of the patch, in voxels of the volume.
        out_CXYZ: The patch; float32, or a dtype that can hold the values.
        nearest: Whether to take the nearest voxel instead of interpolating between eight.
    """
    flat = sources_3XYZ.reshape(3, -1)
    first = np.floor(flat.min(axis=1)).astype(int)
    shape = np.ceil(flat.max(axis=1)).astype(int) - first + 1
    shape = np.maximum(shape, 2)  # grid_sample divides by the number of steps
    block = torch.empty((len(volume_CXYZ), *shape.tolist()), dtype=torch.float32)
    cut(volume_CXYZ, first.tolist(), block)
    places = np.empty((*sources_3XYZ.shape[1:], 3), dtype=np.float32)
    for axis in range(3):  # grid_sample wants the last axis first, from −1 to 1
        step = np.float32(2 / (shape[axis] - 1))
        places[..., 2 - axis] = (sources_3XYZ[axis] - np.float32(first[axis])) * step - 1
    found = functional.grid_sample(
        block[None], torch.from_numpy(places)[None], mode="nearest" if nearest else "bilinear", align_corners=True
    )
    out_CXYZ.copy_(found[0])


def _spline(n: int, distance: float) -> Array:
    """Return the weights (n, nodes) of cubic B-splines whose nodes are ``distance`` voxels apart, centred."""
    span = (n - 1) / distance
    count = int(np.ceil(span)) + 4
    place = (np.arange(n) - (n - 1) / 2) / distance + (count - 1) / 2
    apart = np.abs(place[:, None] - np.arange(count)[None, :])
    near = 2 / 3 - apart**2 + apart**3 / 2
    far = np.clip(2 - apart, 0, None) ** 3 / 6
    weights: Array = np.where(apart < 1, near, far).astype(np.float32)
    return weights
