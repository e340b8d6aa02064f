"""Arrays that every step needs and that depend on sizes alone: they are made once, and nobody changes them."""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
from torch import Tensor


def angular_frequencies(num: int, like: Tensor) -> Tensor:
    """Return the frequencies (num,) of a discrete Fourier transform in rad a pixel, from 0 up, then the negative ones.

    Args:
        num: Number of pixels.
        like: Says dtype and device.
    """
    return _angular_frequencies(num, like.dtype, like.device)


def frequencies_along_both(shape: tuple[int, int], like: Tensor) -> Tensor:
    """Return `angular_frequencies` down and right of each pixel of a spectrum (2, Y, X).

    Args:
        shape: Rows and columns.
        like: Says dtype and device.
    """
    return _frequencies_along_both(*shape, like.dtype, like.device)


def frequencies_along_each(shape: tuple[int, int], like: Tensor) -> Tensor:
    """Return `angular_frequencies` of rows and of columns, one below the other, the shorter ones with zeros after them.

    Args:
        shape: Rows and columns.
        like: Says dtype and device.

    Returns:
        (2, the larger number).
    """
    return _frequencies_along_each(*shape, like.dtype, like.device)


def places_in_patch(shape: tuple[int, int], width: int, device: torch.device) -> Tensor:
    """Return where a patch's pixels (Y, X) are, from its first one on, in a flattened array.

    Args:
        shape: Rows and columns of the patch.
        width: Columns of the array.
        device: The device.
    """
    return _places_in_patch(*shape, width, device)


@lru_cache(maxsize=16)
def _angular_frequencies(num: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # autograd may keep it
        frequencies: Tensor = 2 * pi * torch.fft.fftfreq(num, dtype=dtype, device=device)
    return frequencies


@lru_cache(maxsize=4)
def _frequencies_along_both(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    down_Y, right_X = _angular_frequencies(rows, dtype, device), _angular_frequencies(columns, dtype, device)
    with torch.inference_mode(False):
        return torch.stack(torch.meshgrid(down_Y, right_X, indexing="ij"))


@lru_cache(maxsize=4)
def _frequencies_along_each(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        frequencies_2L = torch.zeros(2, max(rows, columns), dtype=dtype, device=device)
        for along_L, num in zip(frequencies_2L, (rows, columns), strict=True):
            along_L[:num] = _angular_frequencies(num, dtype, device)
    return frequencies_2L


@lru_cache(maxsize=4)
def _places_in_patch(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        places_YX: Tensor = width * torch.arange(rows, device=device)[:, None] + torch.arange(columns, device=device)
    return places_YX
