"""Limits of the object's phase and amplitude: the live part."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING

import torch

from trainkit import RecipeError
from trainkit_ptychography.objects.kind import LiveObject, PixelwiseObject

if TYPE_CHECKING:
    from trainkit_ptychography.constraints.limits import Limits


def limiting(settings: Limits, live_object: LiveObject) -> Callable[[], None]:
    """Return the function that sets the pixels of an object that trains to the limits.

    Raises:
        RecipeError: The object is not made of pixels.
    """
    if not isinstance(live_object, PixelwiseObject):
        raise RecipeError(f"limits need an object made of pixels; {type(live_object).__name__} is none")
    pixels = live_object
    phase = (settings.min_phase_rad, settings.max_phase_rad)
    # Absorption is −log(amplitude), so the largest amplitude is the smallest absorption.
    low, high = (None if each is None else -log(each) for each in (settings.max_amplitude, settings.min_amplitude))

    @torch.no_grad()
    def impose() -> None:
        if not any(parameter.requires_grad for parameter in pixels.parameters()):
            return
        for name, limits in (("phase", phase), ("absorption", (low, high))):
            values = pixels.pixels().get(name)
            if values is not None and limits != (None, None):
                values.clamp_(*limits)

    return impose
