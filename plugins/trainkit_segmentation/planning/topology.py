"""How nnU-Net chooses levels, strides and kernels of a network, and the size of its patches.

The rules are those of nnU-Net 2: ``experiment_planning/experiment_planners`` (Isensee et al., Nature Methods 18 (2021)
203; for residual encoders arXiv:2404.09556). Sizes and spacings are along x, y, z; where two axes are equal, nnU-Net,
which begins with the coarsest axis and then goes from z to x, changes the last one of its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, prod
from typing import Literal

import attrs

from trainkit_segmentation.sizes import Size

Kind = Literal["plain", "resenc"]

_SMALLEST_EDGE = 4  # of the coarsest level
_MOST_FEATURES, _MOST_FEATURES_OF_PLANES = 320, 512
_FIRST_FEATURES = 32
_REFERENCE = {"plain": 560e6, "resenc": 680e6}  # features of one patch, for 8 GB and batches of 2
_REFERENCE_GB = 8.0
_REFERENCE_OF_PLANES = {"plain": 85e6, "resenc": 135e6}  # for batches of 12
_BATCH = 2  # of the reference, and the smallest one
_BATCH_OF_PLANES = 12  # of the reference
_CUBE, _SQUARE = 256**3, 2048**2  # voxels of the patch that is tried first
_LARGEST_SHARE = 0.05  # of all voxels of the data set, that a batch may have
_BLOCKS = {"plain": (2,) * 32, "resenc": (1, 3, 4, *(6,) * 29)}
_DECODER = {"plain": 2, "resenc": 1}


@attrs.frozen
class Topology:
    """A network, and the patch that it takes.

    Attributes:
        patch: Voxels of a patch: a multiple of all strides along each axis.
        strides: Factor between each level and the one before, along each axis; one for each level but the first.
        kernels: Size of the convolutions of each level.
    """

    patch: Size
    strides: tuple[Size, ...]
    kernels: tuple[Size, ...]

    @property
    def features(self) -> tuple[int, ...]:
        """Features of each level: doubled from level to level."""
        most = _MOST_FEATURES_OF_PLANES if min(self.patch) == 1 else _MOST_FEATURES
        return tuple(min(_FIRST_FEATURES * 2**level, most) for level in range(len(self.kernels)))

    @property
    def divisors(self) -> Size:
        """What the edges of the patch are multiples of."""
        x, y, z = (prod(stride[axis] for stride in self.strides) for axis in range(3))
        return (x, y, z)


@attrs.frozen
class Plan:
    """A network, its patch, and the size of a batch.

    Attributes:
        topology: The network and its patch.
        batch_size: Patches of a batch.
        first_patch: The patch before it was shrunk to fit the memory.
        by_share: Whether the batch is limited by the number of voxels of the data set, not by the memory.
        fitting: Patches that would fit the memory.
    """

    topology: Topology
    batch_size: int
    first_patch: Size
    by_share: bool
    fitting: int


def topology_of(spacing_mm: Sequence[float], size: Sequence[int]) -> Topology:
    """Return the network for patches of about a size: halved as often as its edges allow, the finest axes first.

    Args:
        spacing_mm: Size of a voxel.
        size: Voxels of the patch; its edges are rounded up to multiples of what the network takes.
    """
    spacing = [mm if n > 1 else inf for mm, n in zip(spacing_mm, size, strict=True)]  # planes are not thick
    edges = list(size)
    kernel = [1, 1, 1]
    strides: list[Size] = []
    kernels: list[Size] = []
    while True:
        able = [axis for axis in range(3) if edges[axis] >= 2 * _SMALLEST_EDGE]
        if not able:
            break
        finest = min(spacing[axis] for axis in able)
        able = [axis for axis in able if spacing[axis] / finest < 2]
        if len(able) == 1 and edges[able[0]] < 3 * _SMALLEST_EDGE:
            break
        kernel = [3 if k == 3 or mm / min(spacing) < 2 else 1 for k, mm in zip(kernel, spacing, strict=True)]
        kernels.append(_size(kernel))
        strides.append(_size([2 if axis in able else 1 for axis in range(3)]))
        for axis in able:
            spacing[axis] *= 2
            edges[axis] = ceil(edges[axis] / 2)
    kernels.append(_size([3 if n > 1 else 1 for n in size]))
    divisors = [prod(stride[axis] for stride in strides) for axis in range(3)]
    patch = _size([-(-n // divisor) * divisor for n, divisor in zip(size, divisors, strict=True)])
    return Topology(patch, tuple(strides), tuple(kernels))


def num_features(topology: Topology, kind: Kind, num_scores: int) -> int:
    """Return how many numbers the convolutions of a network give for a patch, by which nnU-Net estimates the memory.

    Args:
        topology: The network.
        kind: The kind of its blocks.
        num_scores: Scores for a voxel.
    """
    sizes = [topology.patch]
    for stride in topology.strides:
        sizes.append(_size([n // factor for n, factor in zip(sizes[-1], stride, strict=True)]))
    voxels, features = [prod(size) for size in sizes], topology.features
    if kind == "plain":
        total = sum(_BLOCKS[kind][level] * features[level] * voxels[level] for level in range(len(voxels)))
    else:
        total = features[0] * voxels[0]  # the stem
        for level, blocks in enumerate(_BLOCKS[kind][: len(voxels)]):
            has_skip = level > 0  # the first block of a level changes size or features
            total += (2 * blocks + has_skip) * features[level] * voxels[level]
    for level in range(len(voxels) - 1):
        total += (_DECODER[kind] + 1) * features[level] * voxels[level] + num_scores * voxels[level]
    return total


def plan(
    spacing_mm: Sequence[float],
    median_size: Sequence[float],
    kind: Kind,
    num_scores: int,
    voxels_of_data: float,
    memory_gb: float,
) -> Plan:
    """Return the patch and the batch that nnU-Net would take.

    Args:
        spacing_mm: Size of a voxel after preprocessing.
        median_size: The median over all cases of the number of voxels, along each axis.
        kind: The kind of the network's blocks.
        num_scores: Scores for a voxel.
        voxels_of_data: Voxels of all cases together.
        memory_gb: Memory of the device, in nnU-Net's measure.
    """
    along = [axis for axis in range(3) if median_size[axis] > 1]
    is_plane = len(along) < 3
    finer = ((_SQUARE if is_plane else _CUBE) * prod(spacing_mm[axis] for axis in along)) ** (1 / max(len(along), 1))
    topology = topology_of(
        spacing_mm,
        [int(min(round(finer / mm), most)) for mm, most in zip(spacing_mm, median_size, strict=True)],
    )
    of_batch = _BATCH_OF_PLANES if is_plane else _BATCH
    reference = (_REFERENCE_OF_PLANES if is_plane else _REFERENCE)[kind] * memory_gb / _REFERENCE_GB
    first = topology.patch
    while num_features(topology, kind, num_scores) / of_batch * _BATCH > reference and max(topology.patch) > 1:
        smaller = shrunk(topology, spacing_mm, median_size)
        if smaller.patch == topology.patch:
            break
        topology = smaller
    by_memory = round(reference / num_features(topology, kind, num_scores) * of_batch)
    by_share = round(voxels_of_data * _LARGEST_SHARE / prod(topology.patch))
    return Plan(topology, max(min(by_memory, by_share), _BATCH), first, _BATCH <= by_share < by_memory, by_memory)


def shrunk(topology: Topology, spacing_mm: Sequence[float], median_size: Sequence[float]) -> Topology:
    """Return the network for the next smaller patch: the axis that is largest relative to the median case shrinks.

    The same network: the patch is as small as can be.
    """
    order = [axis for axis in _order_of_nnunet(spacing_mm) if topology.patch[axis] > 1]
    if not order:
        return topology
    axis = max(order, key=lambda each: (topology.patch[each] / median_size[each], order.index(each)))
    size = list(topology.patch)
    size[axis] -= topology.divisors[axis]
    if size[axis] <= 0:
        return topology
    step = topology_of(spacing_mm, size).divisors[axis]
    size = list(topology.patch)
    size[axis] -= step
    return topology_of(spacing_mm, size)


def _order_of_nnunet(spacing_mm: Sequence[float]) -> list[int]:
    """Return the axes as nnU-Net has them: the coarsest one, then z, y, x."""
    coarsest = max((2, 1, 0), key=lambda axis: spacing_mm[axis])
    return [coarsest, *(axis for axis in (2, 1, 0) if axis != coarsest)]


def _size(values: Sequence[int]) -> Size:
    x, y, z = values
    return (x, y, z)
