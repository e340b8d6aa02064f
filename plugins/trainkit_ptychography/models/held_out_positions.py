"""Fits the position of each held-out pattern to that pattern alone, by a few Gauss-Newton steps.

Shapes: B = patterns of a batch, Y, X = rows and columns of the detector, P = Y·X.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_PROBE = 1e-2  # pixels: far above rounding in float32, and small enough for a linear approximation
_FARTHEST = 0.5  # pixels a step: as far as the linear approximation holds


def fit_displacement(
    amplitudes: Callable[[Tensor], Tensor],
    measured_BYX: Tensor,
    mask: Tensor | None,
    start_B2: Tensor,
    steps: int,
) -> Tensor:
    """Return displacements at which a model fits measured amplitudes better, each pattern by itself.

    Args:
        amplitudes: The model: displacements (B, 2) in pixels to amplitudes (B, Y, X).
        measured_BYX: The measured amplitudes, which are fitted by least squares.
        mask: (Y, X) or (B, Y, X), True where the detector can be trusted; None: everywhere.
        start_B2: The displacements to begin with.
        steps: Number of steps to try. A step that does not improve the fit of its pattern is not taken.
    """
    weight: Tensor | float = 1.0 if mask is None else mask.to(measured_BYX)
    at_B2 = start_B2
    now_BYX = amplitudes(at_B2)
    misfit_B = ((measured_BYX - now_BYX) * weight).square().sum((1, 2))
    for _ in range(steps):
        slopes_BP2 = torch.stack(
            [
                ((amplitudes(at_B2 + _PROBE * unit_2) - now_BYX) * weight / _PROBE).flatten(1)
                for unit_2 in torch.eye(2).to(at_B2)
            ],
            dim=-1,
        )
        residual_BP1 = ((measured_BYX - now_BYX) * weight).flatten(1)[:, :, None]
        step_B2 = _solve(slopes_BP2.mT @ slopes_BP2, (slopes_BP2.mT @ residual_BP1)[:, :, 0])
        tried_B2 = at_B2 + step_B2.clamp(-_FARTHEST, _FARTHEST)
        tried_BYX = amplitudes(tried_B2)
        tried_misfit_B = ((measured_BYX - tried_BYX) * weight).square().sum((1, 2))
        better_B = tried_misfit_B < misfit_B
        at_B2 = torch.where(better_B[:, None], tried_B2, at_B2)
        now_BYX = torch.where(better_B[:, None, None], tried_BYX, now_BYX)
        misfit_B = torch.where(better_B, tried_misfit_B, misfit_B)
    return at_B2


def _solve(normal_B22: Tensor, right_B2: Tensor) -> Tensor:
    """Solve 2 × 2 systems; a pattern that tells nothing about its position gets a step of 0."""
    a, b, c, d = normal_B22.flatten(1).unbind(1)
    determinant_B = a * d - b * c
    solved_B2 = torch.stack((d * right_B2[:, 0] - b * right_B2[:, 1], a * right_B2[:, 1] - c * right_B2[:, 0]), dim=1)
    sound_B = determinant_B > 1e-6 * (a + d).square()
    return torch.where(sound_B[:, None], solved_B2 / determinant_B.clamp_min(1e-30)[:, None], 0.0)
