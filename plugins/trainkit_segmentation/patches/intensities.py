"""Changes of the intensities of patches. Each is a pair of functions: what is drawn for a patch, and how it is applied.

Shapes: R = rows, each a channel of a patch, X, Y, Z = voxels. Each row has numbers of its own. They are drawn by numpy;
applying them takes the rows of a whole batch at once, on whatever device these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from trainkit_segmentation.files.header import Array
from trainkit_segmentation.patches.augmentation import (
    Augmentation,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    LowResolution,
    Noise,
)
from trainkit_segmentation.patches.numbers import draw_keys, gaussian_noise, moved

_TRUNCATED = 6.0  # standard deviations; as in nnU-Net


@attrs.frozen(eq=False)
class Drawn:
    """What was drawn for a change: which rows it has, and its numbers for each of them.

    Attributes:
        rows: (R,) int64.
        numbers: Name -> (R, …), float32 or int64.
    """

    rows: Array
    numbers: Mapping[str, Array]


class Numbers(NamedTuple):
    """The numbers of the rows that a change is applied to: where they were drawn, and where the rows are."""

    host: Mapping[str, Array]
    there: Mapping[str, Tensor]

    def per_voxel(self, name: str) -> Tensor:
        """Return a number of each row as (R, 1, 1, 1)."""
        return self.there[name].reshape(-1, 1, 1, 1)


class IntensityChange(NamedTuple):
    """A change of intensities.

    Attributes:
        draw: From settings, number of channels and a generator, draws which channels are changed, and the numbers.
        apply: From rows (R, X, Y, Z), numbers and settings: changes the rows in place.
    """

    draw: Callable[[Any, int, np.random.Generator], Drawn]
    apply: Callable[[Tensor, Numbers, Any], None]


def draw_intensities(settings: Augmentation, channels: int, rng: np.random.Generator) -> dict[str, Drawn]:
    """Draw the changes of a patch: name of the attribute of `Augmentation` -> what was drawn, for those that happen."""
    found = {}
    for name, change in CHANGES.items():
        own = getattr(settings, name)
        if own is not None and rng.random() < own.probability:
            drawn = change.draw(own, channels, rng)
            if len(drawn.rows):
                found[name] = drawn
    return found


def of_a_batch(patches: Sequence[Mapping[str, Drawn]], channels: int) -> dict[str, Drawn]:
    """Return the changes of several patches as those of the rows of a batch, channel after channel of each patch."""
    found = {}
    for name in CHANGES:
        some = [(b, patch[name]) for b, patch in enumerate(patches) if name in patch]
        if some:
            rows = np.concatenate([b * channels + drawn.rows for b, drawn in some])
            names = some[0][1].numbers
            found[name] = Drawn(rows, {n: np.concatenate([drawn.numbers[n] for _, drawn in some]) for n in names})
    return found


def change_intensities(
    rows_RXYZ: Tensor, changes: Mapping[str, Drawn], settings: Augmentation, *, at_once: bool | None = None
) -> None:
    """Apply the changes of a batch, in place.

    Args:
        rows_RXYZ: All rows of the batch, float32.
        changes: What was drawn for them.
        settings: The settings of the changes.
        at_once: Whether a change is applied to all its rows together. Not given: except on a CPU, whose caches hold
            one row, but not all.
    """
    device = rows_RXYZ.device
    if at_once is None:
        at_once = device.type != "cpu"
    all_numbers = {(name, n): array for name, drawn in changes.items() for n, array in drawn.numbers.items()}
    there = moved({**all_numbers, **{(name, ""): drawn.rows for name, drawn in changes.items()}}, device)
    for name, change in CHANGES.items():
        if name not in changes:
            continue
        own, drawn = getattr(settings, name), changes[name]
        if at_once:
            numbers = Numbers(drawn.numbers, {n: there[name, n] for n in drawn.numbers})
            some_RXYZ = rows_RXYZ.index_select(0, there[name, ""])
            change.apply(some_RXYZ, numbers, own)
            rows_RXYZ.index_copy_(0, there[name, ""], some_RXYZ)
            continue
        for place, row in enumerate(drawn.rows.tolist()):
            this = slice(place, place + 1)
            numbers = Numbers(
                {n: array[this] for n, array in drawn.numbers.items()},
                {n: there[name, n][this] for n in drawn.numbers},
            )
            change.apply(rows_RXYZ[row : row + 1], numbers, own)


# ---- the changes ----------------------------------------------------------------------------------------------------


def _draw_noise(settings: Noise, channels: int, rng: np.random.Generator) -> Drawn:
    deviation = np.full(channels, rng.uniform(0, settings.deviation), np.float32)
    return Drawn(np.arange(channels), {"deviation": deviation, "keys": draw_keys(channels, rng)})


def _add_noise(rows_RXYZ: Tensor, numbers: Numbers, settings: Noise) -> None:
    x, y, z = rows_RXYZ.shape[1:]
    rows_RXYZ.add_(gaussian_noise(numbers.there["keys"], (x, y, z)).mul_(numbers.per_voxel("deviation")))


def _draw_blur(settings: Blur, channels: int, rng: np.random.Generator) -> Drawn:
    chosen = rng.random(channels) < settings.channel_probability
    sigmas = rng.uniform(*settings.sigma_voxels, (channels, 3))[chosen]
    return Drawn(np.flatnonzero(chosen), {"weights": blur_weights(sigmas, settings.sigma_voxels[1])})


def blur_weights(sigmas_R3: Array, largest: float) -> Array:
    """Return half of the weights of Gaussians (R, 3, radius + 1), from the centre on, for `blur`.

    Args:
        sigmas_R3: Standard deviations along x, y, z in voxels.
        largest: The largest one that may occur.
    """
    apart = np.arange(int(_TRUNCATED * largest + 0.5) + 1)
    sigmas = np.asarray(sigmas_R3)[..., None]
    weights = np.where(apart <= np.floor(_TRUNCATED * sigmas + 0.5), np.exp(-0.5 * (apart / sigmas) ** 2), 0)
    return np.asarray(weights / (2 * weights.sum(axis=-1, keepdims=True) - 1), dtype=np.float32)


def blur(rows_RXYZ: Tensor, weights_R3T: Tensor) -> None:
    """Blur rows with Gaussians, in place. Beyond its edge, a row is taken as mirrored."""
    radius = weights_R3T.shape[-1] - 1
    both = torch.empty_like(rows_RXYZ)
    for axis in range(1, 4):
        n = rows_RXYZ.shape[axis]
        if n == 1:
            continue  # a blurred plane is the same in all planes
        beyond = torch.arange(-radius, n + radius, device=rows_RXYZ.device).abs_() % (2 * n - 2)
        padded = rows_RXYZ.index_select(axis, torch.minimum(beyond, 2 * n - 2 - beyond))
        weights = weights_R3T[:, axis - 1].T.reshape(radius + 1, -1, 1, 1, 1)
        torch.mul(padded.narrow(axis, radius, n), weights[0], out=rows_RXYZ)
        for k in range(1, radius + 1):
            torch.add(padded.narrow(axis, radius - k, n), padded.narrow(axis, radius + k, n), out=both)
            rows_RXYZ.addcmul_(both, weights[k])


def _draw_factors(settings: Brightness | Contrast, channels: int, rng: np.random.Generator) -> Drawn:
    return Drawn(np.arange(channels), {"factor": rng.uniform(*settings.factor, channels).astype(np.float32)})


def _brighten(rows_RXYZ: Tensor, numbers: Numbers, settings: Brightness) -> None:
    rows_RXYZ.mul_(numbers.per_voxel("factor"))


def _change_contrast(rows_RXYZ: Tensor, numbers: Numbers, settings: Contrast) -> None:
    mean = _mean(rows_RXYZ)
    lowest, highest = _range(rows_RXYZ)
    rows_RXYZ.sub_(mean).mul_(numbers.per_voxel("factor")).add_(mean)
    torch.maximum(rows_RXYZ, lowest, out=rows_RXYZ)  # with tensors as limits, clamp_ takes twice as long
    torch.minimum(rows_RXYZ, highest, out=rows_RXYZ)


def _draw_low_resolution(settings: LowResolution, channels: int, rng: np.random.Generator) -> Drawn:
    chosen = rng.random(channels) < settings.channel_probability
    scales = rng.uniform(*settings.scale, channels).astype(np.float32)
    return Drawn(np.flatnonzero(chosen), {"scale": scales[chosen]})


def _lower_resolutions(rows_RXYZ: Tensor, numbers: Numbers, settings: LowResolution) -> None:
    for row, scale in enumerate(numbers.host["scale"].tolist()):  # each has a coarser grid of its own
        lower_resolution(rows_RXYZ[row], scale, settings.axes)


def lower_resolution(row_XYZ: Tensor, scale: float, axes: Sequence[int]) -> None:
    """Change a row to what a coarser scan would show, in place.

    Args:
        row_XYZ: The row.
        scale: Ratio of the number of voxels along each of ``axes``.
        axes: The axes that become coarser.
    """
    coarse = row_XYZ
    for axis in sorted(axes):
        n = row_XYZ.shape[axis]
        count = max(1, round(n * scale))
        centres = (2 * torch.arange(count, device=row_XYZ.device) + 1) * n  # in units of 1 / (2 count) of a voxel
        coarse = coarse.index_select(axis, centres.div_(2 * count, rounding_mode="floor"))
    for axis in sorted(axes, reverse=True):  # the first one last: its slices lie together in memory
        coarse = _stretched(coarse, row_XYZ.shape[axis], axis, row_XYZ if axis == min(axes) else None)


def _stretched(volume_XYZ: Tensor, n: int, axis: int, out_XYZ: Tensor | None) -> Tensor:
    """Interpolate linearly to ``n`` voxels over the same extent, along one axis.

    Args:
        volume_XYZ: The volume.
        n: Number of voxels.
        axis: The axis.
        out_XYZ: Where the result is written; None: to a new tensor.
    """
    old = volume_XYZ.shape[axis]
    place = ((2 * torch.arange(n, device=volume_XYZ.device) + 1) * old - n).clamp_(0, 2 * n * (old - 1))
    below = place.div(2 * n, rounding_mode="floor")
    weight = ((place - below * (2 * n)).float() / (2 * n)).reshape([-1 if each == axis else 1 for each in range(3)])
    if out_XYZ is None:
        out_XYZ = volume_XYZ.index_select(axis, below)
    else:
        torch.index_select(volume_XYZ, axis, below, out=out_XYZ)
    return out_XYZ.lerp_(volume_XYZ.index_select(axis, (below + 1).clamp_(max=old - 1)), weight)


def _draw_gamma(settings: Gamma, channels: int, rng: np.random.Generator) -> Drawn:
    return Drawn(np.arange(channels), {"exponent": draw_exponents(settings, channels, rng)})


def draw_exponents(settings: Gamma, number: int, rng: np.random.Generator) -> Array:
    """Draw exponents, float32."""
    low, high = settings.exponent
    if settings.draw == "uniform" or not low < 1 < high:
        return rng.uniform(low, high, number).astype(np.float32)
    below = rng.random(number) < 0.5
    return np.where(below, rng.uniform(low, 1, number), rng.uniform(1, high, number)).astype(np.float32)


def _gamma(rows_RXYZ: Tensor, numbers: Numbers, settings: Gamma) -> None:
    raise_to_power(rows_RXYZ, numbers.per_voxel("exponent"), settings, inverted=False)


def _inverted_gamma(rows_RXYZ: Tensor, numbers: Numbers, settings: Gamma) -> None:
    raise_to_power(rows_RXYZ, numbers.per_voxel("exponent"), settings, inverted=True)


def raise_to_power(rows_RXYZ: Tensor, exponent_R111: Tensor, settings: Gamma, *, inverted: bool) -> None:
    """Raise rows to a power in place, with the range of each taken as 0 … 1. A constant row stays as it is.

    Args:
        rows_RXYZ: The rows.
        exponent_R111: The power for each row.
        settings: Whether mean and standard deviation are kept.
        inverted: Whether the brightest value is taken as 0.
    """
    lowest, highest = _range(rows_RXYZ)
    span = highest - lowest
    nonzero = span.clamp(min=torch.finfo(span.dtype).tiny)
    kept = settings.keep_mean_and_deviation
    mean, deviation = (_mean(rows_RXYZ), _deviation(rows_RXYZ)) if kept else (span, span)
    from_zero = rows_RXYZ.neg_().add_(highest) if inverted else rows_RXYZ.sub_(lowest)
    # Logarithms take half the time of pow_; that of 0 is -inf, which becomes 0 again.
    from_zero.div_(nonzero).log2_().mul_(exponent_R111).exp2_().mul_(-span if inverted else span)
    rows_RXYZ += highest if inverted else lowest
    if kept:
        changes = span > 0
        rows_RXYZ -= _mean(rows_RXYZ) * changes
        ratio = deviation / rows_RXYZ.square().mean((1, 2, 3), keepdim=True).sqrt_().clamp_(min=1e-7)
        rows_RXYZ.mul_(torch.where(changes, ratio, 1.0)).add_(mean * changes)


def _range(rows_RXYZ: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each row, (R, 1, 1, 1)."""
    return rows_RXYZ.amin((1, 2, 3), keepdim=True), rows_RXYZ.amax((1, 2, 3), keepdim=True)


def _mean(rows_RXYZ: Tensor) -> Tensor:
    return rows_RXYZ.mean((1, 2, 3), keepdim=True)


def _deviation(rows_RXYZ: Tensor) -> Tensor:
    return (rows_RXYZ - _mean(rows_RXYZ)).square_().mean((1, 2, 3), keepdim=True).sqrt_()


CHANGES = {
    "noise": IntensityChange(_draw_noise, _add_noise),
    "blur": IntensityChange(_draw_blur, lambda rows_RXYZ, numbers, _: blur(rows_RXYZ, numbers.there["weights"])),
    "brightness": IntensityChange(_draw_factors, _brighten),
    "contrast": IntensityChange(_draw_factors, _change_contrast),
    "low_resolution": IntensityChange(_draw_low_resolution, _lower_resolutions),
    "inverted_gamma": IntensityChange(_draw_gamma, _inverted_gamma),
    "gamma": IntensityChange(_draw_gamma, _gamma),
}
"""The changes in the order in which they are applied; each has the name of its attribute of `Augmentation`."""
