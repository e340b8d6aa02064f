"""The object as an array of pixels: transmission = exp(i·phase − absorption).

Shapes: S = slices, B = patterns of a batch, H, W = rows and columns of the object, Y, X = those of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainkit_ptychography.objects.kind import ObjectGeometry
from trainkit_ptychography.objects.transmission import amplitude, transmission_of_patches


class PixelObject(nn.Module):
    """A `LiveObject` of pixels, which begins as vacuum.

    Attributes:
        maps: (1 or 2, H, W): phase in rad, and absorption (minus the logarithm of the amplitude).
    """

    def __init__(self, geometry: ObjectGeometry, absorbs: bool) -> None:
        super().__init__()
        self._patch_shape = geometry.patch_shape
        num = 2 if absorbs else 1
        self.maps = nn.Parameter(torch.zeros(num, *geometry.shape, dtype=geometry.dtype, device=geometry.device))

    def forward(self, corner_B2: Tensor) -> Tensor:
        """Return the transmission of patches, complex (S, B, Y, X)."""
        return transmission_of_patches(self._slices(), corner_B2, self._patch_shape)

    def phase(self) -> Tensor:
        """Return the phase (S, H, W) in rad, not wrapped."""
        return self._slices()[0]

    def amplitude(self) -> Tensor:
        """Return the amplitude (S, H, W), 1 for vacuum."""
        return amplitude(self._slices())

    def pixels(self) -> Mapping[str, Tensor]:
        """Return phase and absorption (S, H, W) as views of the parameters."""
        return dict(zip(("phase", "absorption"), self._slices(), strict=False))

    def _slices(self) -> Tensor:
        return self.maps[:, None]  # (K, S, H, W), of one slice
