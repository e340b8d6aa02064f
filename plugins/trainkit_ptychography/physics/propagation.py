"""Propagation of waves through free space, between slices of a specimen.

Shapes: S = waves or slices, Y, X = rows and columns of a wave.
Units: Å.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor


def fresnel_kernel(
    shape: tuple[int, int], pixel_size_angstrom: float, wavelength_angstrom: float, distance_S: Tensor
) -> Tensor:
    """Return exp(−iπλz k²), by which a wave's Fourier transform is multiplied to propagate the wave by z.

    Positive z is along the beam: a probe with a defocus (underfocus) of z is in focus after z.

    Args:
        shape: Rows and columns.
        pixel_size_angstrom: Size of a pixel.
        wavelength_angstrom: λ.
        distance_S: z of each slice; any real numbers. Its dtype and device are those of the result.

    Returns:
        Complex (S, Y, X), zero frequency at [0, 0], differentiable in ``distance_S``. It is made as an outer product:
        S·(Y + X) exponentials instead of S·Y·X.

    Source:
        Kirkland, "Advanced Computing in Electron Microscopy" (2020), chapter 6.
    """
    kernel_SY, kernel_SX = (
        torch.polar(torch.ones_like(angle), angle)
        for angle in (
            -pi * wavelength_angstrom * distance_S[:, None] * _frequencies(size, pixel_size_angstrom, distance_S) ** 2
            for size in shape
        )
    )
    kernel_SYX: Tensor = kernel_SY[:, :, None] * kernel_SX[:, None, :]
    return kernel_SYX


def middle_to_corner(shape: tuple[int, int]) -> Tensor:
    """Return the factor of a Fourier transform that moves an array's pixel (Y//2, X//2) to [0, 0].

    Args:
        shape: Rows and columns.

    Returns:
        Complex (Y, X) in double precision, zero frequency at [0, 0].
    """
    moved_Y, moved_X = (
        torch.polar(torch.ones_like(angle), angle)
        for angle in (2 * pi / size * (torch.arange(size, dtype=torch.float64) * (size // 2) % size) for size in shape)
    )
    moved_YX: Tensor = moved_Y[:, None] * moved_X[None, :]
    return moved_YX


def propagate(wave_YX: Tensor, kernel_YX: Tensor) -> Tensor:
    """Return waves after their Fourier transforms were multiplied by a kernel; further axes may stand before Y."""
    propagated: Tensor = torch.fft.ifft2(torch.fft.fft2(wave_YX) * kernel_YX)
    return propagated


def within_band(shape: tuple[int, int], share: float, like: Tensor) -> Tensor:
    """Return 1 for frequencies within a circle, else 0; (Y, X), zero frequency at [0, 0].

    Args:
        shape: Rows and columns.
        share: Radius of the circle, as a share of the highest frequency along an axis.
        like: Gives dtype and device.
    """
    along_Y, along_X = (2 * _frequencies(size, 1.0, like) for size in shape)
    within_YX: Tensor = along_Y[:, None].square() + along_X[None, :].square() <= share**2
    return within_YX.to(like)


def _frequencies(num: int, pixel_size: float, like: Tensor) -> Tensor:
    frequencies: Tensor = torch.fft.fftfreq(num, pixel_size, dtype=like.dtype, device=like.device)
    return frequencies
