"""The object as an array of pixels: transmission = exp(i·phase − absorption).

Shapes: B = patterns of a batch, H, W = rows and columns of the object, Y, X = those of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainkit_ptychography.objects.kind import ObjectGeometry
from trainkit_ptychography.physics.forward import crop


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
        """Return the transmission of patches, complex (B, Y, X)."""
        height, width = self._patch_shape
        # Exponentials are dear: take them where there are fewer pixels, in the whole object or in all patches.
        if self.maps[0].numel() <= len(corner_B2) * height * width:
            return crop(_transmission(self.maps), corner_B2, self._patch_shape)
        return _transmission(crop(self.maps, corner_B2, self._patch_shape))

    def phase(self) -> Tensor:
        """Return the phase (H, W) in rad, not wrapped."""
        return self.maps[0]

    def amplitude(self) -> Tensor:
        """Return the amplitude (H, W), 1 for vacuum."""
        return torch.exp(-self.maps[1]) if len(self.maps) == 2 else torch.ones_like(self.maps[0])


def _transmission(maps: Tensor) -> Tensor:
    amplitude = torch.exp(-maps[1]) if len(maps) == 2 else torch.ones_like(maps[0])
    return torch.polar(amplitude, maps[0])
