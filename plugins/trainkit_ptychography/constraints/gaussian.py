"""The object is smoothed by a Gaussian: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt, le

from trainkit import Problem, component
from trainkit_ptychography.constraints.across_beam import doubts_of_length
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.on_pixels import problems_of_pixels

if TYPE_CHECKING:
    from trainkit import Depth, Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class Gaussian(Constraint):
    """Smooths phase and absorption by a Gaussian, slice by slice; their mean stays. For objects made of pixels.

    It is imposed again and again, so a small ``sigma_angstrom``, a small ``weight`` or many ``every_steps`` are enough.

    Attributes:
        sigma_angstrom: Standard deviation of the Gaussian.
        weight: Share of the smoothed object in the new one.
    """

    sigma_angstrom: float = attrs.field(validator=gt(0.0))
    weight: float = attrs.field(default=1.0, validator=[gt(0.0), le(1.0)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that the object is made of pixels."""
        yield from super().problems(recipe)
        yield from problems_of_pixels(recipe)

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[Problem]:
        """Compare the Gaussian with the size of the pixels."""
        yield from doubts_of_length(recipe, depth, "sigma_angstrom", self.sigma_angstrom, 0.1)

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that smooths the object."""
        from trainkit_ptychography.constraints.filters_live import gaussian

        return gaussian(self, live_object, probe)
