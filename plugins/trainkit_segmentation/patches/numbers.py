"""Moves arrays to a device together, and draws noise there that is the same on every device.

Shapes: R = rows, each a channel of a patch, X, Y, Z = voxels.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from trainkit_segmentation.files.header import Array

_Name = TypeVar("_Name", bound=Hashable)

_LOW = 0xFFFFFFFF


def moved(arrays: Mapping[_Name, Array], device: torch.device) -> dict[_Name, Tensor]:
    """Return arrays as tensors on a device, in one copy for each dtype, for which the device is not waited for."""
    there: dict[_Name, Tensor] = {}
    for dtype in {array.dtype for array in arrays.values()}:
        some = {name: array for name, array in arrays.items() if array.dtype == dtype}
        flat = torch.from_numpy(np.concatenate([array.reshape(-1) for array in some.values()]))
        if device.type == "cuda":
            flat = flat.pin_memory()
        parts = torch.split(flat.to(device, non_blocking=True), [array.size for array in some.values()])
        there |= {name: part.view(array.shape) for (name, array), part in zip(some.items(), parts, strict=True)}
    return there


def draw_keys(number: int, rng: np.random.Generator) -> Array:
    """Draw keys (number, 2) for `gaussian_noise`."""
    return np.stack([rng.integers(0, 2**32, number), rng.integers(0, 2**30, number) * 2 + 1], axis=1)


def gaussian_noise(keys_R2: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Return independent standard normal values (R, X, Y, Z), which depend on each row's key and the voxel alone.

    They are computed from the number of the voxel by integer operations, which give the same bits on every device, and
    made normal by the method of Box and Muller, which rounds a little differently on each. A generator of torch would
    give other values on a GPU than on a CPU, and values drawn on the CPU would have to be copied.

    Args:
        keys_R2: Where each row begins, int64 from 0 to 2³² − 1, and its step, which is odd and below 2³¹.
        size: Voxels of a row, fewer than 2³².

    Source:
        Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014): a sequence of constant, odd steps,
        each row with its own, of which each member is mixed; by a function after C. Wellons, "Prospecting for hash
        functions" (2018).
    """
    number = math.prod(size)
    half = (number + 1) // 2
    bits = torch.arange(2 * half, device=keys_R2.device) * keys_R2[:, 1:]
    bits = _mix(bits.add_(keys_R2[:, :1]).bitwise_and_(_LOW))
    radius = bits[:, :half].float().add_(1).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = bits[:, half:].float().mul_(2 * math.pi * 2.0**-32)
    normal = torch.empty(bits.shape, dtype=torch.float32, device=bits.device)
    torch.cos(angle, out=normal[:, :half]).mul_(radius)
    torch.sin(angle, out=normal[:, half:]).mul_(radius)
    return normal[:, :number].reshape(-1, *size)


def _mix(bits: Tensor) -> Tensor:
    """Permute the numbers from 0 to 2³² − 1, in place, so that no bit seems to depend on those of the number.

    Both factors are below 2³¹, so no product exceeds int64.
    """
    higher = torch.empty_like(bits)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x446CA68B)):
        torch.bitwise_right_shift(bits, shift, out=higher)
        bits.bitwise_xor_(higher).mul_(factor).bitwise_and_(_LOW)
    return bits.bitwise_xor_(torch.bitwise_right_shift(bits, 16, out=higher))
