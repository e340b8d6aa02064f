"""What patterns cannot show along the beam is taken out: the live part.

Shapes: S = slices, H, W = rows and columns of the object.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainkit_ptychography.constraints.across_beam import pixel_size_for
from trainkit_ptychography.constraints.along_beam import known_spacing_angstrom
from trainkit_ptychography.constraints.on_pixels import imposing_on_pixels
from trainkit_ptychography.objects.kind import LiveObject

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.missing_wedge import MissingWedge
    from trainkit_ptychography.probes.modes import ProbeModes

_EPSILON = 1e-3  # 1/Å², so that the mean over each slice is weakened as well


def filtering(settings: MissingWedge, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
    """Return the function that filters an object.

    Raises:
        RecipeError: The object has no slices of pixels.
        DataError: The size of its pixels is not known.
    """
    size = pixel_size_for("missing_wedge", probe)
    spacing = known_spacing_angstrom(live_object, "missing_wedge")

    @torch.no_grad()
    def filtered(values_SHW: Tensor) -> Tensor:
        squared_S, squared_H, squared_W = (
            torch.fft.fftfreq(num, step, dtype=values_SHW.dtype, device=values_SHW.device).square()
            for num, step in zip(values_SHW.shape, (spacing, size, size), strict=True)
        )
        across_HW = squared_H[:, None] + squared_W[None, :] + _EPSILON
        keep_SHW = 1 - 2 / pi * torch.atan(settings.weight**2 * squared_S[:, None, None] / across_HW)
        result: Tensor = torch.fft.ifftn(torch.fft.fftn(values_SHW) * keep_SHW).real
        return result

    return imposing_on_pixels(live_object, "missing_wedge", filtered)
