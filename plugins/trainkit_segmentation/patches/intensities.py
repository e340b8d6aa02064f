"""Blur, coarser scans and powers of a patch's channels.

Shapes: X, Y, Z = voxels. Everything is computed by numpy and scipy in one thread, so the bits do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import Gamma


def blur(channel_XYZ: Array, sigma_voxels: Sequence[float]) -> None:
    """Blur a channel with a Gaussian, in place. Beyond its edge, the patch is taken as mirrored."""
    from scipy.ndimage import gaussian_filter

    gaussian_filter(channel_XYZ, sigma_voxels, output=channel_XYZ, mode="mirror", truncate=6.0)


def lower_resolution(channel_XYZ: Array, scale: float, axes: Sequence[int]) -> None:
    """Make a channel look like a coarser scan, in place.

    Args:
        channel_XYZ: The channel.
        scale: Ratio of the number of voxels along each of ``axes``.
        axes: The axes that become coarser.
    """
    coarse = channel_XYZ
    for axis in axes:
        n = channel_XYZ.shape[axis]
        places = (np.arange(max(1, round(n * scale))) + 0.5) * n / max(1, round(n * scale))
        coarse = coarse.take(np.minimum(places.astype(np.intp), n - 1), axis)
    for axis in axes:
        coarse = _stretched(coarse, channel_XYZ.shape[axis], axis)
    channel_XYZ[...] = coarse


def raise_to_power(channel_XYZ: Array, exponent: float, settings: Gamma, *, inverted: bool) -> None:
    """Raise a channel to a power, in place, with its range taken as 0 … 1. A constant channel stays as it is.

    Args:
        channel_XYZ: The channel.
        exponent: The power.
        settings: Whether mean and standard deviation are kept.
        inverted: Whether the brightest value is taken as 0.
    """
    lowest, span = channel_XYZ.min(), np.ptp(channel_XYZ)
    if span <= 0:
        return
    mean, deviation = channel_XYZ.mean(), channel_XYZ.std()
    share = (channel_XYZ - lowest) / span
    channel_XYZ[...] = (1 - (1 - share) ** exponent if inverted else share**exponent) * span + lowest
    if settings.keep_mean_and_deviation:
        channel_XYZ -= channel_XYZ.mean()
        channel_XYZ *= deviation / max(channel_XYZ.std(), np.float32(1e-7))
        channel_XYZ += mean


def draw_exponents(settings: Gamma, number: int, rng: np.random.Generator) -> Array:
    """Draw exponents, float32."""
    low, high = settings.exponent
    if settings.draw == "uniform" or not low < 1 < high:
        return rng.uniform(low, high, number).astype(np.float32)
    below = rng.random(number) < 0.5
    return np.where(below, rng.uniform(low, 1, number), rng.uniform(1, high, number)).astype(np.float32)


def _stretched(volume: Array, n: int, axis: int) -> Array:
    """Interpolate linearly to ``n`` voxels over the same extent, along one axis."""
    old = volume.shape[axis]
    place = np.clip((np.arange(n) + 0.5) * old / n - 0.5, 0, old - 1)
    below = np.minimum(place.astype(np.intp), max(old - 2, 0))
    weight = (place - below).astype(np.float32).reshape([-1 if each == axis else 1 for each in range(3)])
    one, other = volume.take(below, axis), volume.take(np.minimum(below + 1, old - 1), axis)
    found: Array = one + weight * (other - one)
    return found
