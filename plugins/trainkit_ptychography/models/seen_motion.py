"""Which share of what changes behind the specimen is seen where scan points move: measured now and then, and kept.

An exit wave that changes may change the phases of the far field, which the detector does not see: in the mean, half of
the change. Which share it is depends on what a pattern shows of the object, and hardly changes once there is one. So it
is measured at the start of the first epoch in which positions train, and then after 1, 3, 7, 15, … epochs of the run.

Shapes: N = scan points, B = some of them, M = probe modes, Y, X = rows and columns of the detector, H, W = those of the
object.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from trainkit_ptychography.models.probe_slope import ProbeSlope
from trainkit_ptychography.physics.moving_probe import change_of_amplitudes, middle_of
from trainkit_ptychography.physics.patches import patches_at

_IN_THE_MEAN = 0.5
_LEAST = 0.25  # a share near 0 would make steps of any size
_FAINT = 1e-4  # of the power by which the probe itself changes: where the object changes less, there is none yet
_AT_ONCE = 32  # patterns whose arrays stay in the cache


class SeenMotion(nn.Module):
    """Of each scan point, which share of the change of its exit wave changes amplitudes, if it moves down, or right.

    Args:
        num_points: Number of scan points.
        like: Its type and device are those of the shares.

    Attributes:
        share_N2: The shares.
    """

    share_N2: Tensor

    def __init__(self, num_points: int, like: Tensor) -> None:
        super().__init__()
        share_N2 = torch.full((num_points, 2), _IN_THE_MEAN, dtype=like.dtype, device=like.device)
        self.register_buffer("share_N2", share_N2)
        self._is_measured: bool | None = False  # None: shares were loaded
        self.register_load_state_dict_pre_hook(_fill_in)  # type: ignore[no-untyped-call]

    def is_due(self, epoch: int) -> bool:
        """Return whether to measure at the start of an epoch in which positions train."""
        if self._is_measured is None:
            self._is_measured = bool((self.share_N2 != _IN_THE_MEAN).any())
        return not self._is_measured or epoch & (epoch + 1) == 0

    @torch.no_grad()
    def measure(
        self, probe_MYX: Tensor, slope: ProbeSlope, transmission_HW: Tensor, corner_B2: Tensor, index_B: Tensor
    ) -> None:
        """Measure the shares of some scan points.

        Args:
            probe_MYX: The probe's modes, complex.
            slope: The probe's slope.
            transmission_HW: The object's complex transmission.
            corner_B2: First row and column of each patch.
            index_B: The scan points.
        """
        middle, shape = middle_of(probe_MYX), (probe_MYX.shape[1], probe_MYX.shape[2])
        faint_2 = _FAINT * slope.powers_2YX.sum((1, 2))
        for some_2, some in zip(torch.split(corner_B2, _AT_ONCE), torch.split(index_B, _AT_ONCE), strict=True):
            patch_BYX = patches_at(some_2, shape, transmission_HW.shape[1], are_inside=True)(transmission_HW).cut()
            seen_B2 = change_of_amplitudes(middle, patch_BYX) + _IN_THE_MEAN * faint_2
            share_B2 = seen_B2 / (slope.change_of_exit_wave(patch_BYX) + faint_2)
            # In place: a step that is repeated finds it there.
            self.share_N2.index_copy_(0, some, share_B2.nan_to_num(_IN_THE_MEAN).clamp(_LEAST, 1.0))
        self._is_measured = True

    def forget(self) -> None:
        """Forget whether shares were measured, because others are loaded."""
        self._is_measured = None


def _fill_in(seen: SeenMotion, saved: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Let shares be measured anew after a checkpoint that does not have them, from before they were kept."""
    seen.forget()
    saved.setdefault(f"{prefix}share_N2", torch.full_like(seen.share_N2, _IN_THE_MEAN))
