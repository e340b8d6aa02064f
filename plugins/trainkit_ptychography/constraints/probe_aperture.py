"""The probe is kept within an aperture: the settings."""

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
class ProbeAperture(Constraint):
    """Keeps the probe within the angles that the optics let through; its total power stays.

    Light at larger angles comes from the specimen, so it belongs to the object. The edge of the aperture falls over
    ``edge_mrad`` around its angle: there, amplitudes are at most so large a share of the largest one.

    Attributes:
        semiangle_mrad: Half opening angle; choose it slightly larger than the real one, whose edge is not sharp.
        inner_mrad: Angle of a central stop, as zone plates have it.
        edge_mrad: Width of the edge. If left out, two pixels of the detector.
    """

    of_object: ClassVar[bool] = False

    semiangle_mrad: float = attrs.field(validator=gt(0.0))
    inner_mrad: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    edge_mrad: float | None = attrs.field(default=None, validator=attrs.validators.optional(gt(0.0)))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the angles."""
        yield from super().problems(recipe)
        if self.inner_mrad >= self.semiangle_mrad:
            yield Problem(f"must be below semiangle_mrad = {self.semiangle_mrad:g}", "inner_mrad")

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem]:
        """Say how much of the probe as it is told lies within the aperture."""
        if depth == "all":
            from trainkit_ptychography.constraints.probe_masks_live import inspect_mask, opening

            yield from inspect_mask(recipe, "semiangle_mrad", "aperture", lambda probe: opening(self, probe))

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that takes out what lies beyond the aperture."""
        from trainkit_ptychography.constraints.probe_masks_live import masking, opening

        return masking(probe, opening(self, probe), "aperture")
