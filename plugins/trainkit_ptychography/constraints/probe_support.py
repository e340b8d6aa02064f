"""The probe is kept within a circle of the specimen's plane: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import gt

from trainkit import Problem, component
from trainkit_ptychography.constraints.kind import Constraint

if TYPE_CHECKING:
    from trainkit import Depth, Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class ProbeSupport(Constraint):
    """Keeps the probe within a circle around the middle of its array; its total power stays.

    What a probe has far from its middle is seldom light: it is what patterns that were cut off, noise, or another
    scan point's errors left there. The circle's edge falls over ``edge_angstrom``.

    Attributes:
        radius_angstrom: Radius of the circle.
        edge_angstrom: Width of its edge. If left out, two pixels.
    """

    of_object: ClassVar[bool] = False

    radius_angstrom: float = attrs.field(validator=gt(0.0))
    edge_angstrom: float | None = attrs.field(default=None, validator=attrs.validators.optional(gt(0.0)))

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem]:
        """Say how much of the probe as it is told lies within the circle."""
        if depth == "all":
            from trainkit_ptychography.constraints.probe_masks_live import inspect_mask, support

            yield from inspect_mask(recipe, "radius_angstrom", "specimen", lambda probe: support(self, probe))

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that takes out what lies beyond the circle."""
        from trainkit_ptychography.constraints.probe_masks_live import masking, support

        return masking(probe, support(self, probe), "specimen")
