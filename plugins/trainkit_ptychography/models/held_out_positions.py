"""Fits the position of each held-out pattern to that pattern alone, by a few Gauss-Newton steps.

Shapes: B = patterns of a batch, Y, X = rows and columns of the detector, P = Y·X.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

_PROBE = 1e-2  # pixels: far above rounding in float32, and small enough for a linear approximation
_FARTHEST = 0.5  # pixels a step: as far as the linear approximation holds

Amplitudes = Callable[[Tensor], Tensor]
"""Displacements (B, 2) in pixels -> amplitudes (B, Y, X)."""

AmplitudesAndSlopes = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Displacements (B, 2) -> amplitudes (B, Y, X), and their slopes along rows and columns (2, B, Y, X)."""


def fit_displacement(
    amplitudes: Amplitudes,
    measured_BYX: Tensor,
    mask: Tensor | None,
    start_B2: Tensor,
    steps: int,
    slopes: AmplitudesAndSlopes | None = None,
) -> Tensor:
    """Return displacements at which a model fits measured amplitudes better, each pattern by itself.

    Args:
        amplitudes: The model.
        measured_BYX: The measured amplitudes, which are fitted by least squares.
        mask: (Y, X) or (B, Y, X), True where the detector can be trusted; None: everywhere.
        start_B2: The displacements to begin with.
        steps: Number of steps to try. A step that does not improve the fit of its pattern is not taken.
        slopes: The model with its slopes; None: by finite differences, which takes two more evaluations.
    """
    slopes = partial(_by_differences, amplitudes) if slopes is None else slopes
    weight = None if mask is None else mask.to(measured_BYX)

    def counted(values_BYX: Tensor) -> Tensor:
        return (values_BYX if weight is None else values_BYX * weight).flatten(1)

    at_B2 = start_B2
    for _ in range(steps):
        now_BYX, slopes_2BYX = slopes(at_B2)
        residual_BP = counted(measured_BYX - now_BYX)
        step_B2 = _step(counted(slopes_2BYX[0]), counted(slopes_2BYX[1]), residual_BP)
        tried_B2 = at_B2 + step_B2.clamp(-_FARTHEST, _FARTHEST)
        tried_BP = counted(measured_BYX - amplitudes(tried_B2))
        better_B = tried_BP.square().sum(1) < residual_BP.square().sum(1)
        at_B2 = torch.where(better_B[:, None], tried_B2, at_B2)
    return at_B2


def _by_differences(amplitudes: Amplitudes, at_B2: Tensor) -> tuple[Tensor, Tensor]:
    now_BYX = amplitudes(at_B2)
    moved = [amplitudes(at_B2 + _PROBE * unit_2) for unit_2 in torch.eye(2).to(at_B2)]
    return now_BYX, torch.stack([(each_BYX - now_BYX) / _PROBE for each_BYX in moved])


def _step(down_BP: Tensor, right_BP: Tensor, residual_BP: Tensor) -> Tensor:
    """Return the Gauss-Newton step (B, 2); a pattern that tells nothing about its position gets a step of 0."""
    a, b, d = ((one * other).sum(1) for one, other in ((down_BP, down_BP), (down_BP, right_BP), (right_BP, right_BP)))
    first_B, second_B = (down_BP * residual_BP).sum(1), (right_BP * residual_BP).sum(1)
    determinant_B = a * d - b.square()
    solved_B2 = torch.stack((d * first_B - b * second_B, a * second_B - b * first_B), dim=1)
    sound_B = determinant_B > 1e-6 * (a + d).square()
    return torch.where(sound_B[:, None], solved_B2 / determinant_B.clamp_min(1e-30)[:, None], 0.0)
