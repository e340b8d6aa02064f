"""A specimen in the middle of its slices: the live part.

Shapes: S = slices, H, W = rows and columns of the object, M = probe modes, Y, X = rows and columns of the probe.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainkit import DataError, RecipeError
from trainkit_ptychography.constraints.along_beam import known_spacing_angstrom
from trainkit_ptychography.objects.kind import LiveObject, PixelwiseObject
from trainkit_ptychography.physics.propagation import fresnel_kernel, propagate
from trainkit_ptychography.probes.modes import ProbeModes


def centring(live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
    """Return the function that moves an object that trains, and its probe, by a slice towards the middle.

    Raises:
        RecipeError: The object has no slices of pixels.
        DataError: Waves cannot be propagated, because pixel size or wavelength are not known.
    """
    spacing = known_spacing_angstrom(live_object, "depth_centre")
    if not isinstance(live_object, PixelwiseObject):
        raise RecipeError(f"depth_centre needs an object made of pixels; {type(live_object).__name__} is none")
    size, wavelength = probe.sampling
    if size is None or wavelength is None:
        raise DataError("depth_centre moves the probe along the beam: say pixel size and energy_kev in [data]")
    pixels = live_object

    @torch.no_grad()
    def impose() -> None:
        trains = [*pixels.parameters(), probe.modes]
        if not all(parameter.requires_grad for parameter in trains):
            return
        move = slices_to_move(pixels.pixels()["phase"])
        if not move:
            return
        for values_SHW in pixels.pixels().values():
            values_SHW.copy_(moved(values_SHW, move))
        shape = (probe.modes.shape[1], probe.modes.shape[2])
        # The specimen is deeper by so much, and the probe with it: it has to go back to where it enters.
        way_1 = probe.modes.new_tensor([-move * spacing])
        kernel_1YX = fresnel_kernel(shape, size, wavelength, way_1)
        probe.modes.copy_(torch.view_as_real(propagate(torch.view_as_complex(probe.modes), kernel_1YX)))

    return impose


def slices_to_move(phase_SHW: Tensor) -> int:
    """Return by how many slices an object has to move along the beam, −1, 0 or 1, so that it is nearer to the middle.

    The centre is that of the phase's variation across each slice: a constant phase is no specimen.
    """
    num = len(phase_SHW)
    weight_S = phase_SHW.flatten(1).std(1)
    places_S = torch.arange(num).to(weight_S) - (num - 1) / 2
    centre = float((weight_S * places_S).sum() / weight_S.sum().clamp_min(1e-30))
    return 0 if abs(centre) < 1 else (-1 if centre > 0 else 1)


def moved(values_SHW: Tensor, move: int) -> Tensor:
    """Return an object moved by one slice along the beam (1) or against it (−1); the sum over all slices is kept."""
    moved_SHW = values_SHW.roll(move, 0)
    first, last = (0, -1) if move == 1 else (-1, 0)
    moved_SHW[last] += moved_SHW[first]  # what left at one end has come in at the other
    moved_SHW[first] = 0
    return moved_SHW
