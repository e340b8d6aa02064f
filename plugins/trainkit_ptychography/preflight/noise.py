"""What counting noise alone makes of the misfit of patterns.

Shapes: B = patterns, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.preflight.live_patterns import LivePatterns
from trainkit_ptychography.scans.few_counts import counts_in, misfit_of_noise
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording


def electrons_in(data: LiveDiffraction) -> float | None:
    """Return how many electrons make an intensity of 1, the mean of a pattern's total; None: patterns are no counts."""
    counts = counts_in(Recording(LivePatterns(data), data.scan))
    return None if counts is None else data.mean_counts / counts.unit


def noise_of(modelled_BYX: Tensor, mask: Tensor | None, electrons: float) -> NDArray[np.float64]:
    """Return the mean of Σ(√measured − √modelled)² (B,) over the noise of counts of which these are the means.

    Args:
        modelled_BYX: Intensities.
        mask: Which pixels count; None: all.
        electrons: How many of them make an intensity of 1.
    """
    noise_BYX = misfit_of_noise(electrons * modelled_BYX.detach().clamp_min(0).cpu().double().numpy())
    if mask is not None:
        noise_BYX = noise_BYX * mask.cpu().numpy()
    noise_B: NDArray[np.float64] = noise_BYX.sum(axis=(1, 2)) / electrons
    return noise_B
