"""Tells whether patterns differ from each other by more than noise, whatever the geometry and the detector's gain.

What a specimen does to a pattern changes many pixels together; noise changes each for itself. So the patterns are held
against themselves with the values of each pixel shuffled among the patterns, which keeps its noise alone.

Shapes: N = patterns, Y, X = rows and columns of the detector.

Source:
    Horn, Psychometrika 30 (1965) 179 (parallel analysis).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SEED = 0x5AF


def variation(amplitudes_NYX: Tensor, mask_NYX: Tensor | None) -> float:
    """Return the variance along the patterns' first principal component, over that of shuffled patterns; noise: 1.

    Args:
        amplitudes_NYX: Square roots of the intensities, which make counting noise alike everywhere.
        mask_NYX: Which pixels of each pattern count; None: all.
    """
    if mask_NYX is not None:
        amplitudes_NYX = amplitudes_NYX * mask_NYX.all(dim=0)
    values_NP = amplitudes_NYX.flatten(1).double()
    values_NP = values_NP / values_NP.square().sum(1, keepdim=True).clamp_min(1e-30).sqrt()  # the beam may vary
    values_NP = values_NP - values_NP.mean(0)
    order_NP = torch.rand(values_NP.shape, generator=torch.Generator().manual_seed(_SEED)).argsort(0)
    shuffled = _first(values_NP.gather(0, order_NP))
    return _first(values_NP) / shuffled if shuffled > 0 else 1.0


def _first(values_NP: Tensor) -> float:
    return float(torch.linalg.eigvalsh(values_NP @ values_NP.T)[-1])
