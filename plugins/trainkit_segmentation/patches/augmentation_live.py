"""Random changes of a training patch. Each patch has its own random generator.

Shapes: C = channels, X, Y, Z = voxels.

Means and powers are computed by numpy in one thread, so their bits do not depend on torch's number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import Augmentation
from trainkit_segmentation.patches.cutting import cut
from trainkit_segmentation.patches.deformation import (
    draw_affine,
    draw_displacements,
    resample,
    source_coordinates,
)
from trainkit_segmentation.patches.intensities import blur, draw_exponents, lower_resolution, raise_to_power


def fill_patch(
    image_CXYZ: Tensor,
    label_codes_XYZ: Tensor,
    start: Sequence[int],
    spacing_mm: Sequence[float],
    settings: Augmentation,
    rng: np.random.Generator,
    out_image_CXYZ: Tensor,
    out_label_codes_XYZ: Tensor,
) -> None:
    """Cut a patch out of a volume and change it at random.

    Args:
        image_CXYZ: The case's image.
        label_codes_XYZ: The case's label codes.
        start: First voxel of the patch.
        spacing_mm: Size of a voxel of the volume.
        settings: The changes that may be applied.
        rng: Generator of the patch.
        out_image_CXYZ: The image of the patch is written here, float32.
        out_label_codes_XYZ: The label codes of the patch are written here.
    """
    size = tuple(out_label_codes_XYZ.shape)
    affine, elastic, flip = settings.affine, settings.elastic, settings.flip
    flat = [axis for axis in range(3) if label_codes_XYZ.shape[axis] == 1]
    matrix = None if affine is None else draw_affine(affine, spacing_mm, rng, flat)
    field = draw_displacements(elastic, size, spacing_mm, rng) if elastic and _happens(elastic, rng) else None
    if field is not None:
        field[flat] = 0  # nothing is beyond a plane
    flipped = [axis for axis in flip.axes if rng.random() < flip.probability] if flip else []
    if matrix is None and field is None:
        cut(image_CXYZ, start, out_image_CXYZ)
        cut(label_codes_XYZ[None], start, out_label_codes_XYZ[None])
    else:
        places = source_coordinates(start, size, matrix, field)
        resample(image_CXYZ, places, out_image_CXYZ, nearest=False)
        resample(label_codes_XYZ[None], places, out_label_codes_XYZ[None], nearest=True)
    if flipped:
        out_image_CXYZ.copy_(out_image_CXYZ.flip([1 + axis for axis in flipped]))
        out_label_codes_XYZ.copy_(out_label_codes_XYZ.flip(flipped))
    change_intensity(out_image_CXYZ.numpy(), settings, rng)


def change_intensity(image_CXYZ: Array, settings: Augmentation, rng: np.random.Generator) -> None:
    """Change the intensities of a patch, in place."""
    channels = len(image_CXYZ)
    per_channel = (channels, 1, 1, 1)
    if (noise := settings.noise) and _happens(noise, rng):
        deviation = np.float32(rng.uniform(0, noise.deviation))
        image_CXYZ += deviation * rng.standard_normal(image_CXYZ.shape, dtype=np.float32)
    if (smooth := settings.blur) and _happens(smooth, rng):
        chosen = rng.random(channels) < smooth.channel_probability
        sigmas = rng.uniform(*smooth.sigma_voxels, (channels, 3))
        for k in np.flatnonzero(chosen):
            blur(image_CXYZ[k], sigmas[k])
    if (brightness := settings.brightness) and _happens(brightness, rng):
        image_CXYZ *= rng.uniform(*brightness.factor, per_channel).astype(np.float32)
    if (contrast := settings.contrast) and _happens(contrast, rng):
        factor = rng.uniform(*contrast.factor, per_channel).astype(np.float32)
        for channel, each in zip(image_CXYZ, factor, strict=True):
            lowest, highest, mean = channel.min(), channel.max(), channel.mean()
            np.clip((channel - mean) * each + mean, lowest, highest, out=channel)
    if (coarse := settings.low_resolution) and _happens(coarse, rng):
        chosen = rng.random(channels) < coarse.channel_probability
        scales = rng.uniform(*coarse.scale, channels)
        for k in np.flatnonzero(chosen):
            lower_resolution(image_CXYZ[k], float(scales[k]), coarse.axes)
    for gamma, inverted in ((settings.inverted_gamma, True), (settings.gamma, False)):
        if gamma and _happens(gamma, rng):
            for channel, exponent in zip(image_CXYZ, draw_exponents(gamma, channels, rng), strict=True):
                raise_to_power(channel, exponent, gamma, inverted=inverted)


def _happens(settings: Any, rng: np.random.Generator) -> bool:
    return bool(rng.random() < settings.probability)
