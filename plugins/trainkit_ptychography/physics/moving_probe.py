"""How the far field behind a thin specimen changes while the probe moves over it.

Shapes: B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, Q, R = those of the middle of
a patch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainkit_ptychography.physics.forward import fourier_ramp, of_patterns, power, spectrum_to_shift
from trainkit_ptychography.physics.grids import angular_frequencies

_IN_THE_MIDDLE = 0.98  # share of the probe's power
_SIDES = 8  # pixels by which the middle may grow
_EDGE = 4  # pixels over which the probe falls to 0 there: a sharp edge that moves along would change patterns by itself


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


class Middle(NamedTuple):
    """A probe in the middle of its patch, where nearly all of its power is.

    Attributes:
        rows: Rows of the patch.
        columns: Columns of the patch.
        waves_M3QR: The modes there, and by how much each grows for a shift by a pixel down, and right.
    """

    rows: slice
    columns: slice
    waves_M3QR: Tensor


@torch.no_grad()
def middle_of(probe_MYX: Tensor) -> Middle:
    """Return the middle of a probe, complex (M, Y, X)."""
    spectrum_MYX = torch.fft.fft2(probe_MYX)
    down_Y, right_X = (-1j * angular_frequencies(size, probe_MYX.real) for size in probe_MYX.shape[1:])
    slopes = [torch.fft.ifft2(spectrum_MYX * factor) for factor in (down_Y[:, None], right_X)]
    rows, columns = _rows_and_columns(power(probe_MYX[:, None])[0])
    window_QR = _window(rows, probe_MYX, 1)[:, None] * _window(columns, probe_MYX, 2)
    return Middle(rows, columns, torch.stack((probe_MYX, *slopes), dim=1)[:, :, rows, columns] * window_QR)


@torch.no_grad()
def change_of_amplitudes(middle: Middle, patch_BYX: Tensor) -> Tensor:
    """Return how strongly amplitudes in the far field change where the probe moves by a pixel down, or right (B, 2).

    That is Σ (dA / d shift)² over the detector, twice of which is the curvature of Σ (A − measured)² at its minimum. It
    is known within about a tenth, at a tenth of the cost: by what the middle of each patch makes of a probe in the
    middle of the patch, not shifted by a fraction of a pixel.

    Args:
        middle: The probe's middle.
        patch_BYX: The object's complex transmission where each pattern was taken.
    """
    patch_BQR = patch_BYX[:, middle.rows, middle.columns]
    of_modes = [_squares_and_products(waves_3QR, patch_BQR) for waves_3QR in middle.waves_M3QR]
    squares_BQR, products_2BQR = (sum(each[1:], each[0]) for each in zip(*of_modes, strict=True))
    smallest = torch.finfo(squares_BQR.dtype).tiny  # where there is no light, nothing changes either
    of_each_2B = products_2BQR.square().div_(squares_BQR.clamp_min(smallest)).flatten(2).sum(2)
    found_B2: Tensor = of_each_2B.T / squares_BQR[0].numel()
    return found_B2


def _squares_and_products(waves_3QR: Tensor, patch_BQR: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squares of a mode in the far field (B, Q, R), and its products with its two slopes (2, B, Q, R).

    Args:
        waves_3QR: The mode, and its slopes.
        patch_BQR: The object's transmission.
    """
    far_3BQR2 = torch.view_as_real(torch.fft.fft2(waves_3QR[:, None] * patch_BQR))
    products_2BQR2 = far_3BQR2[1:].mul_(far_3BQR2[0])
    squares_BQR2 = far_3BQR2[0].square_()
    # Two terms by hand, as above.
    return squares_BQR2[..., 0] + squares_BQR2[..., 1], products_2BQR2[..., 0] + products_2BQR2[..., 1]


def _rows_and_columns(power_YX: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns about the middle that have nearly all of the power, and room for the edge."""
    rows, columns = power_YX.shape
    if power_YX.is_meta:  # has no values
        return slice(0, rows), slice(0, columns)
    power_YX = power_YX.cpu()
    for side in range(_SIDES, max(rows, columns), _SIDES):
        if power_YX[_about(rows, side), _about(columns, side)].sum() >= _IN_THE_MIDDLE * power_YX.sum():
            return _about(rows, side + 2 * _EDGE), _about(columns, side + 2 * _EDGE)
    return slice(0, rows), slice(0, columns)


def _about(size: int, side: int) -> slice:
    return slice(max(size // 2 - side // 2, 0), min(size // 2 + side // 2, size))


def _window(part: slice, probe_MYX: Tensor, axis: int) -> Tensor:
    """Return 1 along a part of an axis, falling to 0 at both ends if it is not the whole axis."""
    size = part.stop - part.start
    place = torch.arange(size, dtype=probe_MYX.real.dtype, device=probe_MYX.device)
    if size == probe_MYX.shape[axis]:
        return torch.ones_like(place)
    from_end = torch.minimum(place, size - 1 - place) + 0.5
    return torch.sin(torch.pi / 2 * (from_end / _EDGE).clamp_max(1)).square()
