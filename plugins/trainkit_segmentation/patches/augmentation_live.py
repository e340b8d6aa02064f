"""Random changes of training patches, in two parts.

Where cases are, each patch is drawn and cut: its random numbers are a function of (seed, epoch, sample), and only the
block of the case that it shows is read. The changes are then applied to the whole batch, by torch, on any device: in
the process that cut the patches, or on the device of the run. There is one implementation for both.

Shapes: B = patches of a batch, C = channels, X, Y, Z = voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import Augmentation
from trainkit_segmentation.patches.cutting import cut
from trainkit_segmentation.patches.deformation import (
    Deformation,
    bounds,
    displacements,
    draw_affine,
    draw_bending,
    resample,
    source_coordinates,
)
from trainkit_segmentation.patches.intensities import Drawn, change_intensities, draw_intensities, of_a_batch
from trainkit_segmentation.patches.numbers import moved


@attrs.frozen(eq=False)
class Changes:
    """What was drawn for a patch.

    Attributes:
        deformation: Where its voxels come from; None: it is cut as it is.
        flipped: The axes along which it is mirrored.
        intensities: What `draw_intensities` returned.
    """

    deformation: Deformation | None
    flipped: tuple[int, ...]
    intensities: Mapping[str, Drawn]


def draw_changes(
    settings: Augmentation,
    size: Sequence[int],
    volume_shape: Sequence[int],
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
) -> Changes:
    """Draw the changes of a patch.

    Args:
        settings: The changes that may be applied.
        size: Voxels of the patch.
        volume_shape: Channels and voxels of the case.
        spacing_mm: Size of a voxel of the case.
        rng: Generator of the patch.
    """
    affine, elastic, flip = settings.affine, settings.elastic, settings.flip
    flat = [axis for axis in range(3) if volume_shape[1 + axis] == 1]
    matrix = None if affine is None else draw_affine(affine, spacing_mm, rng, flat)
    bending: dict[str, Array] = {}
    if elastic is not None and rng.random() < elastic.probability:
        bending = draw_bending(elastic, size, spacing_mm, rng, flat)
    deformation = None
    if matrix is not None or bending:
        deformation = Deformation(np.eye(3) if matrix is None else matrix, bending)
    flipped = tuple(axis for axis in flip.axes if rng.random() < flip.probability) if flip else ()
    return Changes(deformation, flipped, draw_intensities(settings, volume_shape[0], rng))


@attrs.frozen(eq=False)
class Block:
    """The part of a case that a deformed patch shows.

    Attributes:
        patch: Number of the patch in the batch.
        image_CXYZ: The image there.
        codes_1XYZ: The label codes there.
        start: First voxel of the patch without deformation, counted from that of the block.
        deformation: Where its voxels come from.
    """

    patch: int
    image_CXYZ: Tensor
    codes_1XYZ: Tensor
    start: tuple[float, float, float]
    deformation: Deformation


def cut_block(
    patch: int,
    image_CXYZ: Tensor,
    codes_XYZ: Tensor,
    start: Sequence[int],
    size: Sequence[int],
    deformation: Deformation,
    dtype: torch.dtype,
) -> Block:
    """Cut the part of a case that a deformed patch shows; what is outside of the case is left out.

    Args:
        patch: Number of the patch in the batch.
        image_CXYZ: The case's image.
        codes_XYZ: The case's label codes.
        start: First voxel of the patch without deformation.
        size: Voxels of the patch.
        deformation: Where its voxels come from.
        dtype: That of the block of the image.
    """
    lowest, highest = bounds(start, size, deformation)
    last = np.asarray(codes_XYZ.shape) - 1
    first = np.clip(np.floor(lowest - 0.01).astype(int), 0, last)
    end = np.clip(np.ceil(highest + 0.01).astype(int), first, last) + 1
    shape = np.maximum(end - first, 2).tolist()  # grid_sample divides by the number of steps
    image = torch.empty((len(image_CXYZ), *shape), dtype=dtype)
    codes = torch.empty((1, *shape), dtype=codes_XYZ.dtype)
    cut(image_CXYZ, first.tolist(), image)
    cut(codes_XYZ[None], first.tolist(), codes)
    x, y, z = (float(one - other) for one, other in zip(start, first, strict=True))
    return Block(patch, image, codes, (x, y, z), deformation)


class Source(NamedTuple):
    """Where a patch comes from.

    Attributes:
        image_CXYZ: The case's image.
        codes_XYZ: The case's label codes.
        start: First voxel of the patch; may be negative.
        spacing_mm: Size of a voxel of the case.
        rng: Generator of the patch.
        class_table: The case's class table; None where classes exclude each other.
    """

    image_CXYZ: Tensor
    codes_XYZ: Tensor
    start: Sequence[int]
    spacing_mm: Sequence[float]
    rng: np.random.Generator
    class_table: Tensor | None = None


@attrs.frozen(eq=False)
class CutPatches:
    """Patches of a batch before they are changed, and what was drawn for them.

    Attributes:
        image_BCXYZ: The images; where a patch is deformed, anything.
        codes_BXYZ: The label codes; where a patch is deformed, anything.
        blocks: What the deformed patches show.
        flipped: The axes along which each patch is mirrored.
        intensities: The changes of the batch's rows, which are the channels of all patches.
        class_tables: The class table of each patch's case; None where classes exclude each other.
    """

    image_BCXYZ: Tensor
    codes_BXYZ: Tensor
    blocks: tuple[Block, ...]
    flipped: tuple[tuple[int, ...], ...]
    intensities: Mapping[str, Drawn]
    class_tables: tuple[Tensor | None, ...]

    def to(self, device: torch.device) -> CutPatches:
        """Return the same patches on a device."""

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return attrs.evolve(
            self,
            image_BCXYZ=there(self.image_BCXYZ),
            codes_BXYZ=there(self.codes_BXYZ),
            blocks=tuple(
                attrs.evolve(block, image_CXYZ=there(block.image_CXYZ), codes_1XYZ=there(block.codes_1XYZ))
                for block in self.blocks
            ),
            class_tables=tuple(None if table is None else there(table) for table in self.class_tables),
        )


def cut_patches(sources: Sequence[Source], size: Sequence[int], settings: Augmentation) -> CutPatches:
    """Draw the changes of a batch, and cut its patches.

    Args:
        sources: Where each patch comes from.
        size: Voxels of a patch.
        settings: The changes that may be applied.
    """
    channels = len(sources[0].image_CXYZ)
    as_stored = settings.on == "device" and all(each.image_CXYZ.dtype == torch.float16 for each in sources)
    dtype = torch.float16 if as_stored else torch.float32  # half as much to copy to the device
    is_small = all(each.codes_XYZ.dtype == torch.uint8 for each in sources)
    image_BCXYZ = torch.empty((len(sources), channels, *size), dtype=dtype)
    codes_BXYZ = torch.empty((len(sources), *size), dtype=torch.uint8 if is_small else torch.int32)
    blocks, changes = [], []
    for b, (image_CXYZ, codes_XYZ, start, spacing_mm, rng, _) in enumerate(sources):
        drawn = draw_changes(settings, size, image_CXYZ.shape, spacing_mm, rng)
        changes.append(drawn)
        if drawn.deformation is not None:
            blocks.append(cut_block(b, image_CXYZ, codes_XYZ, start, size, drawn.deformation, dtype))
        else:
            cut(image_CXYZ, start, image_BCXYZ[b])
            cut(codes_XYZ[None], start, codes_BXYZ[b : b + 1])
    return CutPatches(
        image_BCXYZ,
        codes_BXYZ,
        tuple(blocks),
        tuple(each.flipped for each in changes),
        of_a_batch([each.intensities for each in changes], channels),
        tuple(each.class_table for each in sources),
    )


@torch.no_grad()
def augment(patches: CutPatches, settings: Augmentation) -> tuple[Tensor, Tensor]:
    """Apply the changes that were drawn.

    Args:
        patches: The patches, on any device. They may be changed.
        settings: The changes that may be applied.

    Returns:
        The images (B, C, X, Y, Z), float32, and the label codes (B, X, Y, Z), in the dtype of the cases.
    """
    image_BCXYZ, codes_BXYZ = patches.image_BCXYZ.float(), patches.codes_BXYZ
    device, size = image_BCXYZ.device, codes_BXYZ.shape[1:]
    bending = moved(
        {(block.patch, n): array for block in patches.blocks for n, array in block.deformation.numbers.items()}, device
    )
    for block in patches.blocks:
        names = block.deformation.numbers
        field = displacements({n: bending[block.patch, n] for n in names}) if names else None
        places = source_coordinates(block.start, size, block.deformation.matrix, field, device)
        image_BCXYZ[block.patch] = resample(block.image_CXYZ, places, nearest=False)
        codes_BXYZ[block.patch] = resample(block.codes_1XYZ, places, nearest=True)[0]
    for b, axes in enumerate(patches.flipped):
        if axes:
            image_BCXYZ[b] = image_BCXYZ[b].flip([1 + axis for axis in axes])
            codes_BXYZ[b] = codes_BXYZ[b].flip(axes)
    change_intensities(image_BCXYZ.flatten(0, 1), patches.intensities, settings)
    return image_BCXYZ, codes_BXYZ
