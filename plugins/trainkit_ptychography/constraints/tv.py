"""The object's noise is taken out, and its edges stay: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, gt

from trainkit import Problem, component
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.on_pixels import problems_of_pixels

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class TotalVariationStep(Constraint):
    """Lowers the total variation of phase and absorption, slice by slice: noise goes, and edges stay.

    The new object u minimises ½ Σ (u − old)² + weight · Σ |∇u|: unlike the loss "tv", it is exact whatever the
    learning rate is, and flat places become really flat. For objects made of pixels.

    Source: Chambolle, J. Math. Imaging and Vision 20 (2004) 89.

    Attributes:
        weight_rad: What a step between neighbouring pixels is lowered by, in rad of phase, or in units of the
            absorption.
        iterations: Of Chambolle's algorithm; more are more exact.
    """

    weight_rad: float = attrs.field(validator=gt(0.0))
    iterations: int = attrs.field(default=10, validator=ge(1))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that the object is made of pixels."""
        yield from super().problems(recipe)
        yield from problems_of_pixels(recipe)

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that lowers the total variation."""
        from trainkit_ptychography.constraints.tv_live import lowering

        return lowering(self, live_object)
