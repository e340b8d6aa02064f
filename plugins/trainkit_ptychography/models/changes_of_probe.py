"""Fits, to each pattern by itself, by how much its probe differs from another one along given directions.

Shapes: B = patterns of a batch, J = directions, M = incoherent modes of the probe, Y, X = rows and columns of the
detector, P = Y·X.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_STEP = 1e-2  # of the probe's amplitude: far above rounding in float32, and small enough for a linear approximation
_SHARES = (1.0, 0.5, 0.25)
_USUAL = 0.3  # of the probe's amplitude, by which it is expected to change


def fit_changes(
    amplitudes: Callable[[Tensor], Tensor],
    probe_MYX: Tensor,
    directions_JMYX: Tensor,
    measured_BYX: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Return the change of the probe of each pattern along directions (B, J), by one Gauss-Newton step.

    What patterns hardly tell stays small: a change of the usual size is as likely as a misfit of the present size.

    Args:
        amplitudes: The model: a probe for all patterns (M, Y, X), or (M, B, Y, X), to their amplitudes (B, Y, X).
        probe_MYX: The probe.
        directions_JMYX: Directions, of the probe's power.
        measured_BYX: The measured amplitudes.
        mask: (Y, X) or (B, Y, X), True where the detector can be trusted; None: everywhere.
    """
    weight: Tensor | float = 1.0 if mask is None else mask.to(measured_BYX)
    now_BYX = amplitudes(probe_MYX)
    residual_BP = ((measured_BYX - now_BYX) * weight).flatten(1)
    slopes_BPJ = torch.stack(
        [((amplitudes(probe_MYX + _STEP * each) - now_BYX) * weight / _STEP).flatten(1) for each in directions_JMYX],
        dim=-1,
    )
    normal_BJJ = slopes_BPJ.mT @ slopes_BPJ
    ridge_B = residual_BP.square().mean(1) / _USUAL**2
    normal_BJJ.diagonal(dim1=1, dim2=2).add_(ridge_B[:, None].clamp_min(torch.finfo(ridge_B.dtype).tiny))
    step_BJ = torch.linalg.solve(normal_BJJ, slopes_BPJ.mT @ residual_BP[:, :, None])[:, :, 0]
    # A large change of phase bends away from its tangent: of a few shares of the step, each pattern takes the best.
    change_MBYX = torch.tensordot(step_BJ.to(directions_JMYX), directions_JMYX, 1).transpose(0, 1)
    best_B, least_B = torch.zeros_like(ridge_B), residual_BP.square().sum(1)
    for share in _SHARES:
        tried_BYX = amplitudes(probe_MYX[:, None] + share * change_MBYX)
        misfit_B = ((measured_BYX - tried_BYX) * weight).square().sum((1, 2))
        best_B = torch.where(misfit_B < least_B, share, best_B)
        least_B = torch.minimum(misfit_B, least_B)
    found_BJ: Tensor = step_BJ * best_B[:, None]
    return found_BJ
