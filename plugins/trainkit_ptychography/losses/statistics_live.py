"""What measured patterns say of modelled ones, with the adjoints written out: half the time of what autograd derives.

Shapes: B = patterns of a batch, Y, X = rows and columns of the detector. Both functions are sums over the detector, and
means over the patterns. Their values are sums by torch, so that they have the same bits wherever arrays lie in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NO_COUNT = 1e-20  # less than any number of counts; expected ones over it are finite


def squared_amplitudes(intensities_BYX: Tensor, amplitudes_BYX: Tensor, mask: Tensor | None, epsilon: float) -> Tensor:
    """Return Σ (√(I + ε) − A)² / B, differentiable in the intensities.

    Args:
        intensities_BYX: I.
        amplitudes_BYX: A, measured.
        mask: Which pixels count, (Y, X) or (B, Y, X); None: all.
        epsilon: ε.
    """
    loss: Tensor = _SquaredAmplitudes.apply(  # type: ignore[no-untyped-call]
        intensities_BYX, amplitudes_BYX, mask, epsilon
    )
    return loss


def deviance(
    intensities_BYX: Tensor, amplitudes_BYX: Tensor, mask: Tensor | None, mean_counts: float, epsilon: float
) -> Tensor:
    """Return Σ (μ − n − n ln(μ / n)) / B with the counts n = c A² and μ = c I + ε, differentiable in the intensities.

    Args:
        intensities_BYX: I.
        amplitudes_BYX: A, measured.
        mask: Which pixels count, (Y, X) or (B, Y, X); None: all.
        mean_counts: c, what an intensity of 1 stands for.
        epsilon: ε, in counts.
    """
    loss: Tensor = _Deviance.apply(  # type: ignore[no-untyped-call]
        intensities_BYX, amplitudes_BYX, mask, mean_counts, epsilon
    )
    return loss


class _SquaredAmplitudes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, intensities_BYX: Tensor, amplitudes_BYX: Tensor, mask: Tensor | None, eps: float) -> Tensor:
        expected_BYX = (intensities_BYX + eps).sqrt_()
        residual_BYX = expected_BYX - amplitudes_BYX
        if mask is not None:
            residual_BYX *= mask
        ctx.save_for_backward(residual_BYX, expected_BYX)
        return residual_BYX.square().sum() / len(intensities_BYX)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        residual_BYX, expected_BYX = ctx.saved_tensors  # masked pixels have no residual
        return torch.div(residual_BYX, expected_BYX).mul_(gradient / len(residual_BYX)), None, None, None


class _Deviance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, intensities_BYX: Tensor, amplitudes_BYX: Tensor, mask: Tensor | None, counts: float, eps: float
    ) -> Tensor:
        expected_BYX = torch.mul(intensities_BYX, counts).add_(eps)
        counts_BYX = amplitudes_BYX.square().mul_(counts)
        excess_BYX = expected_BYX - counts_BYX
        # One logarithm of the ratio, so that large counts do not cancel. Without any count, it is multiplied by 0.
        missing_BYX = torch.div(expected_BYX, counts_BYX.clamp_min(_NO_COUNT)).log_().mul_(counts_BYX)
        deviance_BYX = torch.sub(excess_BYX, missing_BYX, out=missing_BYX)
        if mask is not None:
            deviance_BYX *= mask
            excess_BYX *= mask
        ctx.save_for_backward(excess_BYX, expected_BYX)
        ctx.counts = counts
        return deviance_BYX.sum() / len(intensities_BYX)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        excess_BYX, expected_BYX = ctx.saved_tensors  # masked pixels have no excess
        slope_BYX = torch.div(excess_BYX, expected_BYX).mul_(gradient * (ctx.counts / len(expected_BYX)))
        return slope_BYX, None, None, None, None
