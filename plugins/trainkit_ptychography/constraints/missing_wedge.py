"""What patterns cannot show along the beam is taken out: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt

from trainkit import Problem, component
from trainkit_ptychography.constraints.along_beam import problems_along_beam
from trainkit_ptychography.constraints.kind import Constraint

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class MissingWedge(Constraint):
    """Weakens what patterns cannot show: structure that varies quickly along the beam, but slowly across it.

    The Fourier transform of phase and absorption is multiplied by 1 − 2/π · atan(weight² k_z² / (k_x² + k_y² + ε)),
    where ε = 1e-3 / Å². The sum over all slices stays as it is. It takes the specimen to be periodic along the beam,
    which mixes its first and last slices: "slice_coupling" does not.

    Source: PtychoShelves, Wakonig et al., J. Appl. Cryst. 53 (2020) 574 (regularize_layers).

    Attributes:
        weight: How steep the wedge is: 1 weakens structure by half whose period along the beam is that across it.
    """

    weight: float = attrs.field(default=1.0, validator=gt(0.0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there are slices of pixels."""
        yield from super().problems(recipe)
        yield from problems_along_beam(recipe)

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that filters the object."""
        from trainkit_ptychography.constraints.missing_wedge_live import filtering

        return filtering(self, live_object, probe)
