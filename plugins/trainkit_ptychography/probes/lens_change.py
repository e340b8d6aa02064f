"""A change of the lens that is trained: aberrations that all modes of a probe have in common.

Shapes: M = modes, Y, X = rows and columns of the detector, T = numbers that are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import atan2, hypot, pi, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit_ptychography.physics.optics import TERMS, scattering_angles
from trainkit_ptychography.probes.wave_sampling import WaveSampling

_FARTHEST = 1.5  # of the aperture's angle: beyond that, high powers of the angle would say much of little light


class LensChange(nn.Module):
    """Multiplies the Fourier transform of each mode by exp(−iχ), where χ is a sum of aberrations.

    A number is the phase in rad that its aberration has at the edge of the aperture, so one learning rate suits all. A
    round aberration has one number, others have two: its cosine and its sine part.

    Attributes:
        numbers_T: The numbers, 0 at first.
        basis_TYX: The phase of each, zero frequency at [0, 0].
        edge_rad: The angle of the aperture: √2 times the root mean square angle of the light, as of a filled disc.

    Raises:
        DataError: The wavelength or the pixel size is not known.
    """

    basis_TYX: Tensor

    def __init__(
        self,
        modes_MYX: NDArray[np.complexfloating],
        names: Sequence[str],
        sampling: WaveSampling,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        size, wavelength = sampling.known("the training of aberrations", "model.probe.trained_aberrations")
        polar_YX, azimuth_YX = scattering_angles((modes_MYX.shape[1], modes_MYX.shape[2]), size, wavelength)
        light_YX = (np.abs(np.fft.fft2(modes_MYX)) ** 2).sum(axis=0)
        self.edge_rad = sqrt(2 * float((light_YX * polar_YX**2).sum() / light_YX.sum()))
        self._wavelength, self._names = wavelength, tuple(names)
        radius_YX = np.minimum(polar_YX / self.edge_rad, _FARTHEST)
        basis = []
        for name in names:
            order, symmetry = TERMS[name]
            for part in (np.cos, np.sin) if symmetry else (np.cos,):
                basis.append(radius_YX ** (order + 1) * part(symmetry * azimuth_YX))
        self.register_buffer("basis_TYX", torch.from_numpy(np.stack(basis)).to(device, dtype), persistent=False)
        self.numbers_T = nn.Parameter(torch.zeros(len(basis), dtype=dtype, device=device))

    def forward(self, modes_MYX: Tensor) -> Tensor:
        """Return the modes as the changed lens makes them; a shift of the whole array by the way changes nothing."""
        phase_YX = -torch.tensordot(self.numbers_T, self.basis_TYX, 1)
        changed_MYX: Tensor = torch.fft.ifft2(
            torch.fft.fft2(modes_MYX) * torch.polar(torch.ones_like(phase_YX), phase_YX)
        )
        return changed_MYX

    def change(self) -> Mapping[str, float]:
        """Return by what the aberrations were changed: size in Å, and direction in degrees of those that have one.

        For example "C12_angstrom" and "phi12_deg". The sizes add up with those of the probe at the start as vectors.
        """
        numbers = iter(self.numbers_T.detach().cpu().tolist())
        found: dict[str, float] = {}
        for name in self._names:
            order, symmetry = TERMS[name]
            in_angstrom = self._wavelength * (order + 1) / (2 * pi * self.edge_rad ** (order + 1))
            along = next(numbers)
            if not symmetry:
                found[f"{name}_angstrom"] = in_angstrom * along
                continue
            across = next(numbers)
            found[f"{name}_angstrom"] = in_angstrom * hypot(along, across)
            found[f"phi{name[1:]}_deg"] = np.degrees(atan2(across, along)) / symmetry
        return found
