"""Fits defocus, rotation and step of a scan together with its object, by the likelihood of the counts.

Each half of the patterns has an object of its own, which takes steps that are scaled by the illumination, as in a trial
(`trial`); the three numbers follow the gradient of the loss of each half on the object of the other. An object that has
seen a pattern has fitted its noise as well, and fits more of it the wider the probe and the longer the step: with one
object for all patterns, steps ended 1 to 8 % too large, and a defocus of 54 Å, where a specimen explains 0.4 % of the
misfit, 20 Å off instead of 1. Trials tell geometries apart, and this finds the exact values nearby, in a few seconds.

The loss is Σ e − m log e, of which a factor of the counts changes nothing. Amplitudes will not do: below one count in a
pixel, the mean of their square roots is far below the square root of the mean, which looks like a larger probe. (At
4e4 e/Å² the defocus was then 10 Å and the step 8 % too large; with counts, 1.3 Å and 1.6 % off.)

Shapes: N = patterns, B = those of a step, M = probe modes, Y, X = rows and columns of the detector, S = all pixels of
the object.

Source:
    Thibault, Guizar-Sicairos, New J. Phys. 14 (2012) 063004 (likelihood of the counts).
"""

from __future__ import annotations

from math import radians
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.physics.forward import fourier_ramp

_EPOCHS = 22
_FIXED_EPOCHS = 2  # until there is an object
_SLOW_FROM = 0.6  # of the epochs
_RATE, _SLOW_RATE = 0.1, 0.03  # of the units below, in a step
_UNITS = (10.0, 3.0, 0.03)  # Å, degrees, logarithm of a factor
_BATCH = 32
_STEP = 1.0
_REGULAR = 0.1  # of the largest illumination: where there is less, steps are not scaled up further
_DARK = 0.003  # of the mean intensity of a pixel: what is expected where nothing is
_ROOM = 1.4  # by which the scan may grow
_SEED = 0xF17


class Fit(NamedTuple):
    """By what a geometry has to be changed.

    Attributes:
        defocus_angstrom: Is added to the underfocus.
        rotation_deg: Is added to the scan's rotation, from the column axis towards the row axis.
        step_factor: Multiplies the distances of scan points.
    """

    defocus_angstrom: float
    rotation_deg: float
    step_factor: float


def fit_geometry(
    intensities_NYX: Tensor,
    mask_NYX: Tensor | None,
    probe_MYX: NDArray[np.complexfloating],
    chirp_YX: NDArray[np.float64] | None,
    positions_N2: NDArray[np.float64],
    scale_2: NDArray[np.float64],
    step_is_free: bool,
) -> Fit:
    """Return the change of a geometry that patterns fit best nearby.

    The global random generators are not touched.

    Args:
        intensities_NYX: Patterns, whose mean total is 1; float32, zero frequency at [0, 0].
        mask_NYX: Which pixels of each pattern count; None: all.
        probe_MYX: The probe's modes, centred at (Y//2, X//2); only their ratios matter.
        chirp_YX: By how many rad an Å of underfocus changes the phase of the probe's Fourier transform; None: the
            defocus is not fitted.
        positions_N2: Where the probe's centre was, in units in which a rotation is one; any origin.
        scale_2: Pixels of the object for such a unit, along rows and columns.
        step_is_free: Whether the step is fitted.
    """
    num, shape = len(intensities_NYX), (intensities_NYX.shape[1], intensities_NYX.shape[2])
    centred_N2 = torch.from_numpy(positions_N2 - positions_N2.mean(axis=0)).float()
    pixels_2 = torch.from_numpy(np.asarray(scale_2)).float()
    reach = float((centred_N2.norm(dim=1).max() * pixels_2.max()).item())
    size = 2 * (int(_ROOM * reach) + max(shape) // 2 + 4)
    probe_MYX = np.asarray(probe_MYX) / np.sqrt((np.abs(probe_MYX) ** 2).sum())
    spectrum_MYX = torch.fft.fft2(torch.from_numpy(probe_MYX.astype(np.complex64)))
    chirp = None if chirp_YX is None else torch.from_numpy(chirp_YX).float()
    free_3 = torch.tensor([chirp is not None, True, step_is_free]).double()
    change_3 = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([change_3], lr=0.0, betas=(0.8, 0.95))
    generator = torch.Generator().manual_seed(_SEED)
    objects = [torch.ones(size * size, dtype=torch.complex64) for _ in range(2)]
    halves = torch.randperm(num, generator=generator).chunk(2)
    dark = _DARK * float(intensities_NYX.mean())

    def placed(index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the object's pixels under patterns, and the probe's modes shifted to where they were."""
        defocus, angle, stretch = (change_3 * free_3 * torch.tensor(_UNITS)).float()
        row_B, column_B = (torch.exp(stretch) * centred_N2[index_B]).T
        cosine, sine = torch.cos(angle * radians(1)), torch.sin(angle * radians(1))
        turned_B2 = torch.stack([row_B * cosine + column_B * sine, column_B * cosine - row_B * sine], dim=1)
        place_B2 = turned_B2 * pixels_2 + size // 2
        half = max(shape) // 2 + 1
        middle_B2 = place_B2.detach().round().clamp(half, size - half)
        rows_BY = middle_B2[:, 0, None].long() - shape[0] // 2 + torch.arange(shape[0])
        columns_BX = middle_B2[:, 1, None].long() - shape[1] // 2 + torch.arange(shape[1])
        wave_MYX = spectrum_MYX if chirp is None else spectrum_MYX * torch.exp(1j * defocus * chirp)
        ramp_BYX = fourier_ramp(place_B2 - middle_B2, shape)
        return rows_BY[:, :, None] * size + columns_BX[:, None, :], torch.fft.ifft2(wave_MYX[:, None] * ramp_BYX)

    def loss(index_B: Tensor, shifted_MBYX: Tensor, patch_BYX: Tensor) -> Tensor:
        far_MBYX = torch.fft.fft2(shifted_MBYX * patch_BYX, norm="ortho")
        expected_BYX = (far_MBYX.real.square() + far_MBYX.imag.square()).sum(0) + dark
        loss_BYX = expected_BYX - intensities_NYX[index_B] * expected_BYX.log()
        total: Tensor = (loss_BYX if mask_NYX is None else loss_BYX * mask_NYX[index_B]).sum()
        return total

    def improved(object_S: Tensor, index_B: Tensor, pixels_BYX: Tensor, shifted_MBYX: Tensor) -> Tensor:
        patch_BYX = object_S[pixels_BYX].requires_grad_()
        loss(index_B, shifted_MBYX, patch_BYX).backward()  # type: ignore[no-untyped-call]
        assert patch_BYX.grad is not None
        gradient_S, power_S = torch.zeros_like(object_S), torch.zeros(size * size)
        gradient_S.index_add_(0, pixels_BYX.flatten(), patch_BYX.grad.flatten() / 2)
        light_BYX = (shifted_MBYX.real.square() + shifted_MBYX.imag.square()).sum(0)
        power_S.index_add_(0, pixels_BYX.flatten(), light_BYX.flatten())
        return object_S - _STEP * gradient_S / (power_S + _REGULAR * power_S.max())

    for epoch in range(_EPOCHS):
        if epoch >= _FIXED_EPOCHS:
            optimizer.param_groups[0]["lr"] = _RATE if epoch < _SLOW_FROM * _EPOCHS else _SLOW_RATE
        orders = [half[torch.randperm(len(half), generator=generator)] for half in halves]
        for pair in zip(*(torch.split(order, _BATCH // 2) for order in orders), strict=False):
            made = [placed(index_B) for index_B in pair]
            if epoch >= _FIXED_EPOCHS:
                optimizer.zero_grad()
                for index_B, (pixels_BYX, shifted_MBYX), other_S in zip(pair, made, objects[::-1], strict=True):
                    loss(index_B, shifted_MBYX, other_S[pixels_BYX]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            objects = [
                improved(object_S, index_B, pixels_BYX, shifted_MBYX.detach())
                for object_S, index_B, (pixels_BYX, shifted_MBYX) in zip(objects, pair, made, strict=True)
            ]
    defocus, rotation, stretch = (change_3.detach() * free_3 * torch.tensor(_UNITS)).tolist()
    return Fit(defocus, rotation, float(np.exp(stretch)))
