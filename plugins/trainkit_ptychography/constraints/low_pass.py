"""The object's fine structure beyond what is resolved is taken out: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt

from trainkit import Problem, component
from trainkit_ptychography.constraints.across_beam import doubts_of_length
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.on_pixels import problems_of_pixels

if TYPE_CHECKING:
    from trainkit import Depth, Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class LowPass(Constraint):
    """Takes periods that are shorter than what can be resolved out of phase and absorption, slice by slice.

    Their Fourier transform is multiplied by a Butterworth filter, 1 / (1 + (k · period)^(2 · order)); the mean stays.
    No structure is resolved beyond the scattering angles that the detector sees. For objects made of pixels.

    Attributes:
        shortest_period_angstrom: The period that is weakened by half.
        order: How steep the filter is; a steep one makes rings around edges.
    """

    shortest_period_angstrom: float = attrs.field(validator=gt(0.0))
    order: float = attrs.field(default=4.0, validator=gt(0.0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that the object is made of pixels."""
        yield from super().problems(recipe)
        yield from problems_of_pixels(recipe)

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[Problem]:
        """Compare the period with the size of the pixels."""
        yield from doubts_of_length(recipe, depth, "shortest_period_angstrom", self.shortest_period_angstrom, 1.4)

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that filters the object."""
        from trainkit_ptychography.constraints.filters_live import low_pass

        return low_pass(self, live_object, probe)
