"""What a detector does to intensities: light that falls on a pixel is partly counted in its neighbours.

Shapes: B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def transfer(shape: tuple[int, int], sigma_pixels: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the modulation transfer function (Y, X//2 + 1) of a Gaussian that is integrated over each pixel, real.

    Unlike a Gaussian that is sampled, it stands for a kernel that is nowhere below 0 and sums up to 1, however narrow.

    Args:
        shape: Rows and columns of the detector.
        sigma_pixels: Standard deviation of the Gaussian, above 0.
        dtype: Real dtype.
        device: Device.
    """
    along_Y, along_X = (_along(size, sigma_pixels) for size in shape)
    return (along_Y[:, None] * along_X[None, : shape[1] // 2 + 1]).to(device, dtype)


def _along(size: int, sigma: float) -> Tensor:
    """Return the transfer function along an axis, in the order of an FFT."""
    width = sigma * sqrt(2)
    kernel = torch.zeros(size, dtype=torch.float64)
    for offset in range(-size, size + 1):  # light that leaves at one edge comes in at the other, as an FFT has it
        kernel[offset % size] += 0.5 * (erf((offset + 0.5) / width) - erf((offset - 0.5) / width))
    along: Tensor = torch.fft.fft(kernel / kernel.sum()).real
    return along


def radial_transfer(
    shape: tuple[int, int],
    frequency_F: NDArray[np.float64],
    value_F: NDArray[np.float64],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Return a modulation transfer function (Y, X//2 + 1) that depends on the size of the frequency alone.

    Args:
        shape: Rows and columns of the detector.
        frequency_F: Cycles per pixel, rising from 0.
        value_F: The function there; between, it is interpolated linearly, and beyond, it keeps its last value.
        dtype: Real dtype.
        device: Device.
    """
    size_YX = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return torch.from_numpy(np.interp(size_YX, frequency_F, value_F)).to(device, dtype)


def blurred(intensities_BYX: Tensor, transfer_YX: Tensor) -> Tensor:
    """Return what a detector counts of intensities, differentiable in them; totals stay, and nothing is below 0."""
    return convolved(intensities_BYX, transfer_YX).clamp_min(0)  # rounding


def convolved(values: Tensor, transfer_YX: Tensor) -> Tensor:
    """Return values (…, Y, X), which may be below 0, spread over the neighbours of their pixels."""
    shape = (values.shape[-2], values.shape[-1])
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(values) * transfer_YX, s=shape)
    return result
