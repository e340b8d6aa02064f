"""The centre of mass of patterns, spread where their probes were, and integrated.

The centre of mass of a pattern, in rad for a pixel of the object, is the slope of the phase averaged over the probe's
intensity. Spread over that intensity again, and integrated once more by the slope's adjoint, the sum over patterns is a
phase of which each frequency q (in rad for a pixel) is multiplied by |q|² |a(q)|², where a is the Fourier transform of
the probe's intensity.

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


def centres_of_mass(evidence: Evidence, points_N: Tensor) -> Tensor:
    """Return how far each pattern's centre of mass is from that of the mean one (N, 2), in rad for an object pixel."""
    along_Y, along_X = (
        2 * torch.pi * torch.fft.fftfreq(size, device=evidence.data.device) for size in evidence.data.detector_shape
    )
    found = [
        torch.stack([change_BYX.sum(2) @ along_Y, change_BYX.sum(1) @ along_X], dim=1)
        for _, change_BYX in evidence.differences(points_N)
    ]
    return torch.cat(found)


class LiveDifferentialPhaseContrast:
    """A `LiveDirectMethod`. Its sums: centres of mass along rows and columns, and the light on each pixel."""

    def __init__(self, evidence: Evidence) -> None:
        self._seen = evidence

    def sums(self, points_N: Tensor) -> Tensor:
        """Return sums (3, H, W) over some scan points."""
        seen = self._seen
        height, width = seen.shape_HW
        sums_3P = torch.zeros(3, height * width, dtype=seen.data.dtype, device=seen.data.device)
        slopes = torch.split(centres_of_mass(seen, points_N), _BATCH)
        for points_B, slope_B2 in zip(torch.split(points_N, _BATCH), slopes, strict=True):
            corner_B2, shift_B2 = seen.patches(points_B)
            probe_MBYX = seen.shifted_probes(shift_B2)
            light_BYX = (probe_MBYX.real.square() + probe_MBYX.imag.square()).sum(0)
            pixels = places(corner_B2, seen.data.detector_shape, width).flatten()
            for axis in (0, 1):
                sums_3P[axis].index_add_(0, pixels, (light_BYX * slope_B2[:, axis, None, None]).flatten())
            sums_3P[2].index_add_(0, pixels, light_BYX.flatten())
        return sums_3P.reshape(3, height, width)

    def blurred(self, sums_CHW: NDArray[np.float64]) -> Blurred:
        """Return the phase that sums stand for."""
        slopes = [np.fft.fft2(self._seen.per_pattern(sums_CHW[axis], sums_CHW[2])) for axis in (0, 1)]
        rows_H1, columns_1W = _angular_frequencies(self._seen.shape_HW)
        phase_HW = np.fft.ifft2(-1j * (rows_H1 * slopes[0] + columns_1W * slopes[1])).real
        shape_YX = self._seen.data.detector_shape
        intensity_YX = (self._seen.probe_MYX.abs().square()).sum(0).cpu().double().numpy()
        rows_Y1, columns_1X = _angular_frequencies(shape_YX)
        power_YX = (rows_Y1**2 + columns_1X**2) * np.abs(np.fft.fft2(intensity_YX)) ** 2
        return Blurred(phase_HW, power_YX, sums_CHW[2])


_BATCH = 32


def _angular_frequencies(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = (np.asarray(2 * np.pi * np.fft.fftfreq(size), np.float64) for size in shape)
    return rows[:, None], columns[None, :]
