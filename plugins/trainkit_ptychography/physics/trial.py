"""A reconstruction of a few hundred patterns in a tenth of a second, to see how well they fit a geometry.

The object alone is reconstructed, in steps that are scaled by the illumination: these have no unit, and come close to
the end within a few epochs, whatever specimen, dose or pixel size. Patterns that are held out tell geometries apart:
one that is wrong fits the patterns that it has seen, and no others.

Shapes: N = patterns, T = those held out, B = those of a step, M = probe modes, Y, X = rows and columns of the detector,
H, W = those of the object.

Source:
    Maiden, Johnson, Li, Optica 4 (2017) 736 (steps scaled by the illumination, rPIE).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.physics.displacement import Shown
from trainkit_ptychography.physics.forward import fourier_ramp, power, sum_of_modes
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.physics.patches import Patches, patches_at

_EPOCHS = 3  # one epoch alone prefers a defocus that is too large (by 10 Å for 60 Å)
_BATCH = 32
_STEP = 0.5
_REGULAR = 0.1  # of the largest illumination: where there is less, steps are not scaled up further
_SHARES = (1.0, 0.6, 0.3)  # of the contrast that is kept: the fewer the electrons, the more of it is noise
_DARK = 0.01  # of the root mean square amplitude
_HELD_OUT_EVERY = 4
_SEED = 0x6E0
_SEEN = 0.3  # of the largest illumination: where an object is seen well


@attrs.frozen(eq=False)
class Trial:
    """How well patterns fit a geometry. Misfits are Σ (√I − √I_measured)², of patterns whose mean total is 1.

    Attributes:
        misfit_T: The misfit of each held-out pattern after the reconstruction.
        empty_T: The same for vacuum, of the amplitude that fits best.
        phase_skewness: Skewness of the phase where the object is seen well: above 0 if few places have a large phase,
            as atoms have.
        found: The object; None: it was not kept.
    """

    misfit_T: NDArray[np.float64]
    empty_T: NDArray[np.float64]
    phase_skewness: float
    found: Shown | None = None

    @property
    def misfit(self) -> float:
        """The mean misfit of the held-out patterns."""
        return float(self.misfit_T.mean())

    @property
    def empty(self) -> float:
        """The mean misfit of vacuum."""
        return float(self.empty_T.mean())

    @property
    def gain(self) -> float:
        """By how much the reconstruction is better than vacuum."""
        return self.empty - self.misfit


def held_out(num: int) -> NDArray[np.int64]:
    """Return which of ``num`` patterns a trial holds out."""
    order = torch.randperm(num, generator=torch.Generator().manual_seed(_SEED))
    return order[: max(1, num // _HELD_OUT_EVERY)].numpy()


def try_out(
    amplitudes_NYX: Tensor,
    mask_NYX: Tensor | None,
    probe_MYX: NDArray[np.complexfloating],
    positions_N2: NDArray[np.float64],
) -> Trial:
    """Reconstruct an object, and return how well it fits patterns that were held out.

    The global random generators are not touched.

    Args:
        amplitudes_NYX: Square roots of the intensities, whose mean total is 1; float32, zero frequency at [0, 0].
        mask_NYX: Which pixels of each pattern count; None: all.
        probe_MYX: The probe's modes, centred at (Y//2, X//2); only their ratios matter.
        positions_N2: Where the probe's centre was, in pixels; any origin.
    """
    shape = (amplitudes_NYX.shape[1], amplitudes_NYX.shape[2])
    placement = place(positions_N2, shape, margin=2)
    height, width = placement.shape_HW
    corner_N2 = torch.from_numpy(placement.corner_N2)
    probe_MYX = np.asarray(probe_MYX) / np.sqrt((np.abs(probe_MYX) ** 2).sum())
    spectrum_MYX = torch.fft.fft2(torch.from_numpy(probe_MYX.astype(np.complex64)))
    ramp_NYX = fourier_ramp(torch.from_numpy(placement.remainder_N2).float(), shape)
    shifted_MNYX = torch.fft.ifft2(spectrum_MYX[:, None] * ramp_NYX)

    generator = torch.Generator().manual_seed(_SEED)
    order_N = torch.randperm(len(amplitudes_NYX), generator=generator)
    num_held_out = len(held_out(len(order_N)))
    held_T, train = order_N[:num_held_out], order_N[num_held_out:]

    def mask(index_B: Tensor) -> Tensor | None:
        return None if mask_NYX is None else mask_NYX[index_B]

    def misfits(far_MTYX: Tensor) -> NDArray[np.float64]:
        return _misfit(power(far_MTYX).sqrt(), amplitudes_NYX[held_T], mask(held_T)).double().numpy()

    object_HW = torch.full((height, width), 1.0, dtype=torch.complex64)
    first_B = train[:_BATCH]
    first = _Batch.of(first_B, shifted_MNYX, corner_N2, shape, width)
    object_HW *= _best_scale(power(first.far_field(object_HW)).sqrt(), amplitudes_NYX[first_B], mask(first_B))
    held = _Batch.of(held_T, shifted_MNYX, corner_N2, shape, width)
    empty_MTYX = held.far_field(object_HW)
    light_HW, dark = torch.zeros(height, width), _DARK * (shape[0] * shape[1]) ** -0.5
    for epoch in range(_EPOCHS):
        for index_B in torch.split(train[torch.randperm(len(train), generator=generator)], _BATCH):
            batch = _Batch.of(index_B, shifted_MNYX, corner_N2, shape, width)
            far_MBYX = batch.far_field(object_HW)
            power_BYX = power(far_MBYX)
            # Where nothing is expected the phase is that of rounding errors, which must not decide anything.
            excess_BYX = 1 - amplitudes_NYX[index_B] * power_BYX.sqrt() / (power_BYX + dark**2)
            if mask_NYX is not None:
                excess_BYX *= mask_NYX[index_B]
            back_MBYX = torch.fft.ifft2(far_MBYX.mul_(excess_BYX), norm="ortho")
            gradient_HW, power_HW = torch.zeros_like(object_HW), torch.zeros_like(light_HW)
            batch.patches(gradient_HW).add(sum_of_modes(back_MBYX.mul_(batch.shifted_MBYX.conj())))
            batch.patches(power_HW).add(power(batch.shifted_MBYX))
            object_HW -= _STEP * gradient_HW / (power_HW + _REGULAR * power_HW.max())
            if epoch == 0:
                light_HW += power_HW
    # The far field is linear in the object, so that of a weaker contrast is known without a transform.
    empty_T, contrast_MTYX = misfits(empty_MTYX), held.far_field(object_HW) - empty_MTYX
    weakened = [misfits(empty_MTYX + share * contrast_MTYX) for share in _SHARES]
    seen_HW = light_HW > _SEEN * light_HW.max()
    phase_HW = _phase(object_HW, seen_HW)
    return Trial(
        min(weakened, key=np.mean),
        empty_T,
        _skewness(phase_HW[seen_HW]),
        Shown(phase_HW.numpy(), seen_HW.numpy(), placement.origin_2),
    )


class _Batch(NamedTuple):
    """Some of the patterns of a trial.

    Attributes:
        shifted_MBYX: The probe where each of them was taken.
        patches: Finds their patches of an object.
    """

    shifted_MBYX: Tensor
    patches: Callable[[Tensor], Patches]

    @classmethod
    def of(cls, index_B: Tensor, shifted_MNYX: Tensor, corner_N2: Tensor, shape: tuple[int, int], width: int) -> _Batch:
        """Return the patterns with these numbers."""
        return cls(shifted_MNYX.index_select(1, index_B), patches_at(corner_N2[index_B], shape, width))

    def far_field(self, object_HW: Tensor) -> Tensor:
        """Return the waves of the modes at the detector (M, B, Y, X)."""
        far_MBYX: Tensor = torch.fft.fft2(self.shifted_MBYX * self.patches(object_HW).cut(), norm="ortho")
        return far_MBYX


def _misfit(expected_BYX: Tensor, amplitudes_BYX: Tensor, mask_BYX: Tensor | None) -> Tensor:
    difference_BYX = (expected_BYX - amplitudes_BYX).square()
    if mask_BYX is not None:
        difference_BYX = difference_BYX * mask_BYX
    total_B: Tensor = difference_BYX.sum((1, 2))
    return total_B


def _best_scale(expected_BYX: Tensor, amplitudes_BYX: Tensor, mask_BYX: Tensor | None) -> float:
    """Return by which factor the amplitudes of vacuum fit best; noise alone makes it less than 1."""
    if mask_BYX is not None:
        expected_BYX = expected_BYX * mask_BYX
    return float((expected_BYX * amplitudes_BYX).sum() / expected_BYX.square().sum().clamp_min(1e-30))


def _phase(object_HW: Tensor, seen_HW: Tensor) -> Tensor:
    """Return the phase, with a mean of 0 where the object is seen well."""
    phase_HW = torch.angle(object_HW * object_HW[seen_HW].sum().conj()).double()
    return phase_HW - phase_HW[seen_HW].mean()


def _skewness(values_S: Tensor) -> float:
    spread = float(values_S.square().mean().sqrt())
    return float((values_S**3).mean()) / spread**3 if spread > 0 else 0.0
