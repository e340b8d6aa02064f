"""How the far field behind a thin specimen changes while the probe moves over it.

Shapes: B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit_ptychography.physics.forward import fourier_ramp, of_patterns, spectrum_to_shift
from trainkit_ptychography.physics.grids import angular_frequencies


@torch.no_grad()
def far_field_and_slopes(probe_MYX: Tensor, shift_B2: Tensor, patch_BYX: Tensor) -> tuple[Tensor, Tensor]:
    """Return the far field, and by how much it grows for a shift of the probe by a pixel down, and right.

    The shifted probe is F⁻¹(F(probe) · ramp), and d ramp / d shift = −i k · ramp with the angular frequency k. So with
    the exit waves' transforms Ψ_m = F(F⁻¹(F(probe_m) · ramp) · patch), and Ψ'_m the same of F(probe_m) · (−i k) · ramp,
    the slope of Σ_m |Ψ_m|² is 2 Σ_m Re(Ψ_m* Ψ'_m).

    Args:
        probe_MYX: The probe's modes, complex; or (M, B, Y, X), those of each pattern.
        shift_B2: Distance of the probe from the centre of its patch, in pixels (row, column).
        patch_BYX: The object's complex transmission where each pattern was taken.

    Returns:
        The intensities (B, Y, X), as `intensities` returns them; and their slopes (2, B, Y, X) per pixel.
    """
    rows, columns = patch_BYX.shape[1], patch_BYX.shape[2]
    ramp_BYX = fourier_ramp(shift_B2, (rows, columns))
    down_Y1, right_X = (-1j * angular_frequencies(size, shift_B2) for size in (rows, columns))
    down_Y1 = down_Y1[:, None]
    squares_BYX2 = shift_B2.new_zeros(*patch_BYX.shape, 2)
    products_2BYX2 = shift_B2.new_zeros(2, *patch_BYX.shape, 2)
    for spectrum_BYX in of_patterns(spectrum_to_shift(probe_MYX)[0]):  # arrays of one mode stay in the cache
        moved_BYX = spectrum_BYX * ramp_BYX
        wave_BYX2 = torch.view_as_real(_far(moved_BYX, patch_BYX))
        squares_BYX2.addcmul_(wave_BYX2, wave_BYX2)
        for products_BYX2, factor in zip(products_2BYX2, (down_Y1, right_X), strict=True):
            slope_BYX2 = torch.view_as_real(_far(moved_BYX * factor, patch_BYX))
            products_BYX2.addcmul_(wave_BYX2, slope_BYX2, value=2)
    # Two terms by hand: a sum over the last axis takes ten times as long on a CPU.
    return squares_BYX2[..., 0] + squares_BYX2[..., 1], products_2BYX2[..., 0] + products_2BYX2[..., 1]


def _far(spectrum_BYX: Tensor, patch_BYX: Tensor) -> Tensor:
    far_BYX: Tensor = torch.fft.fft2(torch.fft.ifft2(spectrum_BYX, norm="forward").mul_(patch_BYX))
    return far_BYX
