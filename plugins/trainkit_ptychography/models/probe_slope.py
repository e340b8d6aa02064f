"""How strongly exit waves change where positions move: by the slope of the probe, and by what the object deviates.

The slope changes slowly, and the curvature along positions need not be exact. So the slope is measured at the start of
each epoch, and of a patch only the middle counts, where nearly all of the slope is.

Shapes: B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, P = pixels of the middle.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trainkit_ptychography.physics.forward import power
from trainkit_ptychography.physics.grids import frequencies_along_both

_IN_THE_MIDDLE = 0.95  # share of the slope
_SIDES = 8  # pixels by which the middle may grow


class ProbeSlope(nn.Module):
    """By which power a probe changes at each pixel if it moves by a pixel down, or right.

    Args:
        probe_MYX: The probe as the recipe tells it, which says where the middle is: a run that resumes finds the same.

    Attributes:
        powers_2YX: The power at each pixel; 0 everywhere: it was not measured yet.
    """

    powers_2YX: Tensor
    _total_2: Tensor
    _weight_2Q: Tensor  # of real and imaginary parts side by side, Q = 2P
    _weight_2P: Tensor  # complex

    def __init__(self, probe_MYX: Tensor) -> None:
        super().__init__()
        powers_2YX = _powers(probe_MYX)
        self._middle = _middle_of(powers_2YX.sum(0))
        self.register_buffer("powers_2YX", torch.zeros_like(powers_2YX))
        weight_2P = torch.zeros_like(powers_2YX[:, *self._middle].flatten(1))
        self.register_buffer("_total_2", weight_2P[:, 0].clone(), persistent=False)
        self.register_buffer("_weight_2Q", weight_2P.repeat_interleave(2, dim=1), persistent=False)
        self.register_buffer("_weight_2P", weight_2P.to(probe_MYX.dtype), persistent=False)
        self._is_measured: bool | None = False  # None: buffers were loaded
        self.register_load_state_dict_pre_hook(_fill_in)  # type: ignore[no-untyped-call]

    def is_measured(self) -> bool:
        """Return whether it was measured, by this run or by the one whose checkpoint was loaded."""
        if self._is_measured is None:
            self._is_measured = bool(self.powers_2YX.any())
            self._weigh()
        return self._is_measured

    @torch.no_grad()
    def measure(self, probe_MYX: Tensor) -> None:
        """Measure the slope of a probe."""
        self.powers_2YX.copy_(_powers(probe_MYX))
        self._is_measured = True
        self._weigh()

    def change_of_exit_wave(self, patch_BYX: Tensor) -> Tensor:
        """Return the power by which each exit wave changes if its probe moves by a pixel down, or right (B, 2).

        Of the object, only its deviation from its mean under the probe counts.

        Args:
            patch_BYX: The object's complex transmission.
        """
        patch_BP = patch_BYX[:, *self._middle].flatten(1)
        # Squares of real and imaginary parts side by side, as they lie in memory: to add them up first takes longer.
        power_B2 = linear(torch.view_as_real(patch_BP).square().flatten(1), self._weight_2Q)
        mean_2B = self._weight_2P @ patch_BP.T
        return (power_B2 - power(mean_2B[None]).T).clamp_min(0) * self._total_2

    def forget(self) -> None:
        """Forget whether it was measured, because other buffers are loaded."""
        self._is_measured = None

    @torch.no_grad()
    def _weigh(self) -> None:
        """Set how much each pixel of the middle counts, where it is: a step that is repeated finds it there."""
        power_2P = self.powers_2YX[:, *self._middle].flatten(1)
        smallest = torch.finfo(power_2P.dtype).tiny  # of a probe that is the same everywhere: moved, it changes nothing
        weight_2P = power_2P / power_2P.sum(1, keepdim=True).clamp_min(smallest)
        self._total_2.copy_(self.powers_2YX.sum((1, 2)))
        self._weight_2Q.copy_(weight_2P.repeat_interleave(2, dim=1))
        self._weight_2P.copy_(weight_2P)


def _fill_in(slope: ProbeSlope, saved: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Let it be measured anew after a checkpoint that does not have it, from before it was kept."""
    slope.forget()
    saved.setdefault(f"{prefix}powers_2YX", torch.zeros_like(slope.powers_2YX))


def _powers(probe_MYX: Tensor) -> Tensor:
    """Return the power by which each pixel changes if the probe moves by a pixel down, or right (2, Y, X)."""
    spectrum_MYX = torch.fft.fft2(probe_MYX)
    down_and_right_2YX = frequencies_along_both((spectrum_MYX.shape[1], spectrum_MYX.shape[2]), spectrum_MYX.real)
    return power(torch.fft.ifft2(spectrum_MYX[:, None] * down_and_right_2YX))


def _middle_of(powers_YX: Tensor) -> tuple[slice, slice]:
    rows, columns = powers_YX.shape
    if powers_YX.is_meta:  # has no values
        return slice(None), slice(None)
    for side in range(_SIDES, max(rows, columns), _SIDES):
        place = (_about(rows // 2, side), _about(columns // 2, side))
        if powers_YX[place].sum() >= _IN_THE_MIDDLE * powers_YX.sum():
            return place
    return slice(None), slice(None)


def _about(place: int, side: int) -> slice:
    return slice(max(place - side // 2, 0), place + side // 2)
