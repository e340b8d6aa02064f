"""Images of the pixels of the bright field, each laid where the probe's aberrations shift it to, and summed up.

The image of a pixel k of the bright field is that of a microscope whose illumination is tilted by k: it is shifted by
the slope of the aberration function, s_k = ∇χ(k)/2π. So the light that a pixel sees at a scan point belongs to that
point plus the shift, on whatever grid the points lie. The sum is the phase times

    T(q) = Σ_k exp(−2πi q·s_k) iΓ(k, q) / Σ_k |P(k)|².

Shapes: N = scan points, B = patterns of a batch, K = pixels of the bright field, M = probe modes, Y, X = rows and
columns of the detector, H, W = those of the object.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError
from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.direct.kind import Blurred
from trainkit_ptychography.direct.spectrum import on_frequencies_of
from trainkit_ptychography.physics.weak_phase import bright_field, overlaps, some_of

_FEWEST_PIXELS = 9
_LEAST_TRANSFER = 0.3  # at 1.2 or more, a probe is well defocused
_MOST_TERMS = 2**27  # pixels of the bright field times scan points: beyond that, fewer pixels are taken


class LiveParallax:
    """A `LiveDirectMethod`. Its sums: changes of the light, and the light, both laid where they belong.

    Raises:
        DataError: The probe's bright field is too small to be taken apart.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._seen = evidence
        first_YX = evidence.aperture[0]
        light_YX = (np.abs(evidence.aperture) ** 2).sum(axis=0)
        inside_YX = bright_field(light_YX)
        for axis in (0, 1):  # the slope at a pixel is taken from its neighbours
            inside_YX = inside_YX & np.roll(inside_YX, 1, axis) & np.roll(inside_YX, -1, axis)
        inside_K2 = np.argwhere(inside_YX)
        if len(inside_K2) < _FEWEST_PIXELS:
            raise DataError(
                f"{evidence.data.scan.source}: the bright field has {len(inside_K2)} pixels inside its edge, too few "
                'for images of its pixels: bin the detector less, or use method = "ssb"'
            )
        self._pixels_K2 = some_of(inside_K2, max(_FEWEST_PIXELS, _MOST_TERMS // max(len(evidence.points_N), 1)))
        slopes = [_slope(first_YX, axis) for axis in (0, 1)]
        self.shifts_K2 = np.stack([each[tuple(self._pixels_K2.T)] for each in slopes], axis=1)
        self._light_K = light_YX[tuple(self._pixels_K2.T)]
        self._transfer_YX = self._transfer()
        if (most := float(np.abs(self._transfer_YX).max())) < _LEAST_TRANSFER:
            raise DataError(
                f"{evidence.data.scan.source}: the probe is so near focus that images of the bright field show next to "
                f"nothing of a phase (they transfer {most:.2g} of it at most, and images shift by "
                f'{np.abs(self.shifts_K2).max():.2g} pixels at most): use method = "ssb" or "dpc", or check the '
                "defocus"
            )

    def sums(self, points_N: Tensor) -> Tensor:
        """Return sums (2, H, W) over some scan points."""
        seen = self._seen
        device, (height, width) = seen.data.device, seen.shape_HW
        sums_2P = torch.zeros(2, height * width, dtype=seen.data.dtype, device=device)
        shifts_K2 = torch.from_numpy(self.shifts_K2).to(device, seen.data.dtype)
        light_K = torch.from_numpy(self._light_K).to(device, seen.data.dtype)
        rows, columns = torch.from_numpy(self._pixels_K2.T.copy()).to(device)
        for points_B, change_BYX in seen.differences(points_N):
            change_BK = change_BYX[:, rows, columns]
            places_B2 = torch.from_numpy(seen.places(points_B)).to(device, seen.data.dtype)
            places_BK2 = places_B2[:, None] + shifts_K2
            whole_BK2 = places_BK2.floor()
            rest_BK2 = places_BK2 - whole_BK2
            for down in (0, 1):
                for right in (0, 1):
                    share_BK = (rest_BK2[..., 0] if down else 1 - rest_BK2[..., 0]) * (
                        rest_BK2[..., 1] if right else 1 - rest_BK2[..., 1]
                    )
                    row_BK = (whole_BK2[..., 0].long() + down).clamp(0, height - 1)
                    column_BK = (whole_BK2[..., 1].long() + right).clamp(0, width - 1)
                    pixels = (row_BK * width + column_BK).flatten()
                    sums_2P[0].index_add_(0, pixels, (share_BK * change_BK).flatten())
                    sums_2P[1].index_add_(0, pixels, (share_BK * light_K).flatten())
        return sums_2P.reshape(2, height, width)

    def blurred(self, sums_CHW: NDArray[np.float64]) -> Blurred:
        """Return the phase that sums stand for."""
        image_HW = self._seen.per_pattern(sums_CHW[0], sums_CHW[1])
        transfer_HW = on_frequencies_of(image_HW.shape, self._transfer_YX)
        phase_HW = np.fft.ifft2(transfer_HW.conj() * np.fft.fft2(image_HW)).real
        return Blurred(phase_HW, np.abs(self._transfer_YX) ** 2, sums_CHW[1] / self._light_K.sum())

    def _transfer(self) -> NDArray[np.complex128]:
        rows_Y, columns_X = (np.fft.fftfreq(size) for size in self._seen.data.detector_shape)
        numbers = some_of(np.arange(len(self._pixels_K2)))
        total_YX = np.zeros(self._seen.data.detector_shape, complex)
        chosen = overlaps(self._seen.aperture, self._pixels_K2[numbers])
        for (down, right), overlap_YX in zip(self.shifts_K2[numbers], chosen, strict=True):
            ramp_Y, ramp_X = np.exp(-2j * np.pi * rows_Y * down), np.exp(-2j * np.pi * columns_X * right)
            total_YX += 1j * ramp_Y[:, None] * ramp_X * overlap_YX
        return np.asarray(total_YX / self._light_K[numbers].sum())


def _slope(aperture_YX: NDArray[np.complex128], axis: int) -> NDArray[np.float64]:
    """Return ∇χ/2π along an axis, in pixels of the object; the wave in the aperture is exp(−iχ)."""
    behind_YX, before_YX = np.roll(aperture_YX, -1, axis), np.roll(aperture_YX, 1, axis)
    steps_YX: NDArray[np.float64] = np.angle(behind_YX * before_YX.conj()) / 2
    return np.asarray(-steps_YX * aperture_YX.shape[axis] / (2 * np.pi))
