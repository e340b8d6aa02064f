"""Neighbouring slices are alike: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
from attrs.validators import gt

from trainkit import Problem, component
from trainkit_ptychography.constraints.along_beam import problems_along_beam, spacing_angstrom
from trainkit_ptychography.constraints.kind import Constraint

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes

_LEAST = 0.25  # of the distance between slices: a neighbour then counts for 0.03 %


@component
class SliceCoupling(Constraint):
    """Makes neighbouring slices alike: phase and absorption are smoothed along the beam by a Gaussian.

    Patterns tell little of fine structure along the beam, and a fit fills it with noise and ghosts of other slices.
    Beyond the first and last slice the specimen is taken to go on as it is there, so that the sum over all slices is
    kept where slices are alike. Usually ``every_epochs = 1``, and a ``stop_epoch`` at two thirds of the run, so that at
    its end the slices are as sharp as the patterns make them.

    Attributes:
        sigma_angstrom: Standard deviation of the Gaussian. About half the distance between slices is mild; what is
            imposed n times smooths like √n times as much.
    """

    sigma_angstrom: float = attrs.field(validator=gt(0.0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there are slices of pixels."""
        yield from super().problems(recipe)
        yield from problems_along_beam(recipe)
        spacing = spacing_angstrom(recipe)
        if spacing is not None and self.sigma_angstrom < _LEAST * spacing:
            yield Problem(
                f"has next to no effect on slices that are {spacing:.3g} Å apart: it must be above "
                f"{_LEAST * spacing:.2g} Å",
                "sigma_angstrom",
                "warning",
            )

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that smooths along the beam."""
        from trainkit_ptychography.constraints.slice_coupling_live import coupling

        return coupling(self, live_object)
