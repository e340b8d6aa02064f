"""Single side bands, summed up in the specimen's plane instead of over frequencies of a raster.

Γ* weights of a pattern's change are the same as the adjoint of the linear forward model: the change times the wave in
the aperture, transformed back, times the conjugate of the probe. The sum over patterns is a phase of which each
frequency is multiplied by Σ_k |Γ(k, q)|².

Shapes: N = scan points, B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, H, W = those
of the object.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.direct.kind import Blurred
from trainkit_ptychography.physics.patches import places
from trainkit_ptychography.physics.weak_phase import transferred_power


class LiveSingleSideBand:
    """A `LiveDirectMethod`. Its sums: patterns taken back, and the light on each pixel."""

    def __init__(self, evidence: Evidence) -> None:
        self._seen = evidence

    def sums(self, points_N: Tensor) -> Tensor:
        """Return sums (2, H, W) over some scan points."""
        seen = self._seen
        height, width = seen.shape_HW
        sums_2P = torch.zeros(2, height * width, dtype=seen.data.dtype, device=seen.data.device)
        for points_B, change_BYX in seen.differences(points_N):
            corner_B2, shift_B2 = seen.patches(points_B)
            probe_MBYX = seen.shifted_probes(shift_B2)
            far_MBYX = torch.fft.fft2(probe_MBYX, norm="ortho")
            back_MBYX = torch.fft.ifft2(far_MBYX * change_BYX, norm="ortho")
            taken_back_BYX = 2 * (probe_MBYX.conj() * back_MBYX).sum(0).imag
            pixels = places(corner_B2, seen.data.detector_shape, width).flatten()
            sums_2P[0].index_add_(0, pixels, taken_back_BYX.flatten())
            light_BYX = (probe_MBYX.real.square() + probe_MBYX.imag.square()).sum(0)
            sums_2P[1].index_add_(0, pixels, light_BYX.flatten())
        return sums_2P.reshape(2, height, width)

    def blurred(self, sums_CHW: NDArray[np.float64]) -> Blurred:
        """Return the phase that sums stand for."""
        phase_HW = self._seen.per_pattern(sums_CHW[0], sums_CHW[1])
        return Blurred(phase_HW, transferred_power(self._seen.aperture), sums_CHW[1])
