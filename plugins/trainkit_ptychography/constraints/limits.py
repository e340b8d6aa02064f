"""Limits of the object's phase and amplitude: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt, optional

from trainkit import Problem, component
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.on_pixels import problems_of_pixels
from trainkit_ptychography.objects.pixels import Pixels

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class Limits(Constraint):
    """Keeps the object's phase and amplitude within limits: pixels that a step took beyond a limit are set to it.

    A specimen adds no electrons or photons to the beam: ``max_amplitude = 1.0``. Atoms delay electrons:
    ``min_phase_rad = 0.0``, which also fixes the mean phase, about which patterns tell nothing. For objects made of
    pixels.

    Attributes:
        min_phase_rad: Smallest phase of a pixel.
        max_phase_rad: Largest phase of a pixel.
        min_amplitude: Smallest amplitude of a pixel; above 0.
        max_amplitude: Largest amplitude of a pixel; 1 is vacuum.
    """

    min_phase_rad: float | None = None
    max_phase_rad: float | None = None
    min_amplitude: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    max_amplitude: float | None = attrs.field(default=None, validator=optional(gt(0.0)))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the limits, and whether the object has pixels."""
        yield from super().problems(recipe)
        pairs = {
            "max_phase_rad": (self.min_phase_rad, self.max_phase_rad),
            "max_amplitude": (self.min_amplitude, self.max_amplitude),
        }
        for key, (low, high) in pairs.items():
            if low is not None and high is not None and low >= high:
                yield Problem(f"must be above {key.replace('max', 'min')} = {low:g}, got {high:g}", key)
        if all(limit is None for pair in pairs.values() for limit in pair):
            yield "give at least one limit: min_phase_rad, max_phase_rad, min_amplitude or max_amplitude"
        yield from problems_of_pixels(recipe)
        settings = getattr(recipe.model, "object", None)
        if isinstance(settings, Pixels) and settings.kind == "phase_only":
            for key in ("min_amplitude", "max_amplitude"):
                if getattr(self, key) is not None:
                    yield Problem('has no effect: the amplitude of a "phase_only" object is 1 everywhere', key)

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that sets pixels to the limits."""
        from trainkit_ptychography.constraints.limits_live import limiting

        return limiting(self, live_object)
