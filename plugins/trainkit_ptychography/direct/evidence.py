"""What direct methods look at: patterns as differences from the mean one, the probe, and where both are in the object.

Shapes: N = scan points, B = patterns of a batch, M = probe modes, Y, X = rows and columns of the detector, H, W = those
of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.physics.forward import fourier_ramp
from trainkit_ptychography.scans.kind_live import LiveDiffraction

_FOR_THE_MEAN = 256  # patterns
_LEAST_WEIGHT = 0.3  # of the typical one: where there is less, sums are not scaled up further


@attrs.frozen(eq=False)
class Evidence:
    """Patterns that one probe made.

    Attributes:
        data: The opened scan.
        points_N: The scan points that may be looked at, on the CPU: none that is held out.
        probe_MYX: The probe's modes in the middle of the specimen, of total power 1, centred at (Y//2, X//2).
        origin_2: Position, in the data's coordinates, of the object's pixel [0, 0], in pixels.
        shape_HW: Rows and columns of the object.
        told_defocus_angstrom: Underfocus of the probe as it is told; None: nothing is told.
    """

    data: LiveDiffraction
    points_N: Tensor
    probe_MYX: Tensor
    origin_2: NDArray[np.float64]
    shape_HW: tuple[int, int]
    told_defocus_angstrom: float | None = None

    @cached_property
    def aperture(self) -> NDArray[np.complex128]:
        """The wave in the aperture, of total power 1, of a probe that is centred at [0, 0]."""
        centred_MYX = torch.fft.ifftshift(self.probe_MYX, dim=(-2, -1)).cpu().numpy()
        return np.fft.fft2(centred_MYX.astype(np.complex128), norm="ortho")

    @cached_property
    def mean_pattern(self) -> Tensor:
        """The mean pattern, each pixel over the patterns in which it was measured; its total is 1."""
        num = min(_FOR_THE_MEAN, len(self.points_N))
        chosen = self.points_N[torch.linspace(0, len(self.points_N) - 1, num).round().long()]
        total_YX = torch.zeros(self.data.detector_shape, device=self.data.device)
        times_YX = torch.zeros_like(total_YX)
        for batch in self.data.some(chosen):
            measured_BYX = self._measured(batch)
            total_YX += (batch["amplitudes"].square() * measured_BYX).sum(0)
            times_YX += measured_BYX.sum(0)
        mean_YX = total_YX / times_YX.clamp_min(1)
        return mean_YX / mean_YX.sum()

    def differences(self, points_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of scan points (B,) on the CPU, and their patterns less the mean one (B, Y, X).

        Each pattern is scaled to as much light as the mean one has at the pixels that count in it: a beam that varies,
        and a specimen that absorbs, are no change of phase. What does not count is 0, and so is an empty pattern.
        """
        start = 0
        for batch in self.data.some(points_N):
            measured_BYX = self._measured(batch)
            intensities_BYX = batch["amplitudes"].square() * measured_BYX
            expected_BYX = self.mean_pattern * measured_BYX
            light_B, of_mean_B = intensities_BYX.sum((1, 2)), expected_BYX.sum((1, 2))
            scale_B = torch.where(light_B > 0, of_mean_B / light_B.clamp_min(1e-30), 0.0)
            difference_BYX = intensities_BYX * scale_B[:, None, None] - expected_BYX
            difference_BYX = difference_BYX * (light_B > 0)[:, None, None]
            yield points_N[start : start + len(light_B)], difference_BYX
            start += len(light_B)

    def _measured(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch.get("mask", self.data.mask_YX)
        return torch.ones_like(batch["amplitudes"]) if mask is None else mask.expand_as(batch["amplitudes"]).float()

    def places(self, points_N: Tensor) -> NDArray[np.float64]:
        """Return where the probe's centre is in the object, (N, 2) in pixels."""
        places_N2: NDArray[np.float64] = self.data.scan.positions_N2[points_N.numpy()] - self.origin_2
        return places_N2

    def patches(self, points_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first row and column of each patch (N, 2), and the probe's shift within it (N, 2)."""
        start_N2 = self.places(points_N) - np.array([size // 2 for size in self.data.detector_shape])
        corner_N2 = np.rint(start_N2)
        shift_N2 = torch.from_numpy(start_N2 - corner_N2).to(self.data.device, self.data.dtype)
        return torch.from_numpy(corner_N2.astype(np.int64)).to(self.data.device), shift_N2

    def shifted_probes(self, shift_B2: Tensor) -> Tensor:
        """Return the probe's modes (M, B, Y, X), shifted to where they were within their patches."""
        ramp_BYX = fourier_ramp(shift_B2, self.data.detector_shape)
        shifted_MBYX: Tensor = torch.fft.ifft2(torch.fft.fft2(self.probe_MYX)[:, None] * ramp_BYX)
        return shifted_MBYX

    def per_pattern(self, sum_HW: NDArray[np.float64], weight_HW: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a sum over patterns as a mean over those that saw each place; it fades where few did."""
        rows, columns = np.rint(self.places(self.points_N)).astype(np.int64).T
        least = max(_LEAST_WEIGHT * float(np.median(weight_HW[rows, columns])), 1e-30)
        mean_HW: NDArray[np.float64] = np.divide(sum_HW, np.maximum(weight_HW, least))
        return mean_HW
