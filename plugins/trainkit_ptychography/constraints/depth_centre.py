"""A specimen in the middle of its slices: the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from trainkit import Problem, component
from trainkit_ptychography.constraints.along_beam import problems_along_beam
from trainkit_ptychography.constraints.kind import Constraint

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.objects.kind import LiveObject
    from trainkit_ptychography.probes.modes import ProbeModes


@component
class DepthCentre(Constraint):
    """Keeps the specimen in the middle of its slices, where there is vacuum in front of it and behind it.

    A probe whose focus is told too deep or too high gives a specimen that lies too deep or too high by as much, and may
    end outside of its slices. Patterns are the same if specimen and probe move together. So the object is moved by a
    whole slice, and the probe is propagated by as much, as soon as the centre of its phase is further than that from
    the middle. What leaves at one end is added to the last slice there. It needs slices of vacuum to move into: a
    ``thickness_angstrom`` that is larger than the specimen, and a defocus that is larger by what is in front of it.
    Group ``probe`` must train when it is imposed, usually once an epoch (``every_epochs = 1``).
    """

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there are slices of pixels, and that the probe trains."""
        yield from super().problems(recipe)
        yield from problems_along_beam(recipe)
        probe = recipe.groups.get("probe")
        if probe is None or probe.start_epoch is None:
            yield "moves the probe as well, and group probe never trains: [groups.probe] start_epoch = 0"
        if recipe.run.cuda_graph and self.every_epochs is None:
            yield "looks where the specimen is, which run.cuda_graph = true cannot record: set every_epochs = 1"

    def build(self, live_object: LiveObject, probe: ProbeModes) -> Callable[[], None]:
        """Make the function that moves object and probe."""
        from trainkit_ptychography.constraints.depth_centre_live import centring

        return centring(live_object, probe)
