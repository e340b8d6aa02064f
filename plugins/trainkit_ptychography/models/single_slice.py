"""Single-slice ptychography: the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Data, Model, component
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.objects.kind import Object
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from trainkit import Depth, Problem, Progress, Recipe


@component
class SingleSlice(Model):
    """A thin specimen: the far field of the probe times the object's transmission; positions can be trained too.

    Parameter groups: ``object`` trains from the start; ``probe``, ``dr`` and ``scan`` train only if they are given a
    ``start_epoch``, so that the object can be reconstructed first. ``dr`` are the displacements of the scan points in
    pixels; ``scan`` is the rotation, scale and shear of the whole scan, in pixels at its edge. ``other`` is empty.

    If the probe's ``trained_aberrations`` names some, group ``aberrations`` trains them, with an optimizer that asks
    for no curvature, such as "adam".

    While ``probe`` trains, its power is kept and its modes are made orthogonal once an epoch. While ``dr`` trains, the
    affine part of the displacements is taken out once an epoch: patterns hardly tell a scaled or rotated scan from a
    changed object and probe, and without this the positions drift while the loss still falls. Train ``scan`` only if
    the scan's calibration is in doubt and the probe's is not; it then receives what is taken out of ``dr``.

    No step ever sees a pattern that is held out for validation. While ``dr`` trains, the displacement of such a point
    is fitted to its own pattern alone, with object and probe fixed, and then brought back into the frame of the scan as
    it was given. So ``val/loss`` shows a better object despite errors of positions, and it shows a scan that drifts.

    Source: Maiden, Humphry, Sarahan, Kraus, Rodenburg, Ultramicroscopy 120 (2012) 64 (positions); Thibault, Menzel,
    Nature 494 (2013) 68 (modes).

    Attributes:
        object: How the specimen's transmission is parametrised.
        probe: What illuminates the specimen before anything is trained.
        object_margin: Pixels of object around the outermost patches, for positions that move.
        project_affine: Whether displacements are kept free of shift, rotation, scale and shear of the whole scan.
        constraints: What is imposed on object and probe between steps, by name: ``[model.constraints.NAME]``.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    computes_complex: ClassVar[bool] = True

    probe: Probe
    object: Object = Pixels()
    object_margin: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    project_affine: bool = True
    constraints: Mapping[str, Constraint] = attrs.Factory(dict)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Refuse an average of the weights, because validation changes some of them."""
        if recipe.ema is not None:
            yield (
                "cannot be used with [ema]: validation fits the positions of held-out patterns, and would change the "
                "average instead of the positions"
            )

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Compare the geometry that is told with what a few hundred patterns show."""
        if depth == "headers":
            yield "geometry     not compared with the patterns; check --data does that"
            return
        from trainkit_ptychography.preflight.inspection import inspect_geometry

        if isinstance(recipe.data, DiffractionData):
            yield from inspect_geometry(recipe.data, self.probe, recipe)
            if isinstance(self.object, Pixels) and self.object.path is not None:
                from trainkit_ptychography.preflight.earlier_object import inspect_earlier_object

                yield from inspect_earlier_object(recipe.data, self.object, self.probe, self.object_margin, recipe)

    def timeline(self, epochs: int) -> Iterable[tuple[int, str]]:
        """Yield what object, probe and constraints do in the course of a run."""
        yield from self.object.timeline(epochs)
        yield from self.probe.timeline(epochs)
        for name, constraint in self.constraints.items():
            if 0 < constraint.start_epoch < epochs:
                yield constraint.start_epoch, f"constraint {name} starts"
            if constraint.stop_epoch is not None and constraint.stop_epoch < epochs:
                yield constraint.stop_epoch, f"constraint {name} stops"

    def groups(self) -> Mapping[str, bool]:
        """Return the groups: only the object trains without a ``start_epoch``."""
        lens = {"aberrations": False} if self.probe.trained_aberrations else {}
        return {"object": True, "probe": False, **lens, "dr": False, "scan": False, "other": False}

    def groups_with_curvature(self) -> tuple[str, ...]:
        """Return all groups; the object only if its parameters are its pixels."""
        return (*(("object",) if self.object.has_pixels else ()), "probe", "dr", "scan", "other")

    def build(self, data: Any) -> nn.Module:
        """Make the network."""
        from trainkit_ptychography.models.single_slice_live import SingleSliceModule
        from trainkit_ptychography.objects.kind import ObjectGeometry, ObjectPlacement
        from trainkit_ptychography.probes.modes import ProbeModes
        from trainkit_ptychography.probes.wave_sampling import WaveSampling

        def make_object(shape: tuple[int, int], origin_2: NDArray[np.float64]) -> nn.Module:
            placed = ObjectPlacement(origin_2, data.scan.positions_N2, data.scan.pixel_size_angstrom)
            geometry = ObjectGeometry(shape, data.detector_shape, data.dtype, data.device, data.seed, placed)
            return self.object.build(geometry)

        sampling = WaveSampling.of(data.scan)
        modes_MYX, trained = self.probe.build(data), self.probe.trained_aberrations
        probe = ProbeModes(modes_MYX, data.dtype, data.device, sampling, trained)
        constraints = tuple(self.constraints.values())
        return SingleSliceModule(data, make_object, probe, self.object_margin, self.project_affine, constraints)

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group; "other" is empty, and kept for recipes and checkpoints that name it."""
        return {
            "object": model.object.parameters(),
            "probe": [model.probe.modes],
            **({} if model.probe.lens is None else {"aberrations": model.probe.lens.parameters()}),
            "dr": [model.dr],
            "scan": [model.scan],
            "other": [],
        }
