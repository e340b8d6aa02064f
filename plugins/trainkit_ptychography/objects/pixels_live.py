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
        geometry: What the object was made for.
        maps: Phase in rad, and absorption (minus the logarithm of the amplitude): (1 or 2, H, W); of several slices
            (1 or 2, S, H, W).
    """

    def __init__(self, geometry: ObjectGeometry, absorbs: bool) -> None:
        super().__init__()
        self.geometry = geometry
        slices = () if geometry.slices == 1 else (geometry.slices,)
        shape = (2 if absorbs else 1, *slices, *geometry.shape)
        self.maps = nn.Parameter(torch.zeros(shape, dtype=geometry.dtype, device=geometry.device))

    def forward(self, corner_B2: Tensor) -> Tensor:
        """Return the transmission of patches, complex (S, B, Y, X)."""
        return transmission_of_patches(self.slices(), corner_B2, self.geometry.patch_shape)

    def slices(self, corner_B2: Tensor | None = None) -> Tensor:
        """Return phase in rad and absorption of all slices (K, S, H, W)."""
        return self.maps if self.maps.ndim == 4 else self.maps[:, None]

    def phase(self) -> Tensor:
        """Return the phase (S, H, W) in rad, not wrapped."""
        return self.slices()[0]

    def amplitude(self) -> Tensor:
        """Return the amplitude (S, H, W), 1 for vacuum."""
        return amplitude(self.slices())

    def pixels(self) -> Mapping[str, Tensor]:
        """Return phase and absorption (S, H, W) as views of the parameters."""
        return dict(zip(("phase", "absorption"), self.slices(), strict=False))
