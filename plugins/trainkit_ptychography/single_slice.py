"""Single-slice ptychography: the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Data, Model, Problem, component
from trainkit_ptychography.diffraction import DiffractionData
from trainkit_ptychography.objects import Object
from trainkit_ptychography.pixels import Pixels
from trainkit_ptychography.probes import Probe

if TYPE_CHECKING:
    from torch import nn

    from trainkit.recipe.root import Recipe


@component
class SingleSlice(Model):
    """A thin specimen: the probe times the object's transmission, seen in the far field. With scan positions.

    Parameter groups: ``object`` trains from the start; ``probe`` and ``dr``, the displacements of the scan points
    in pixels, train only if they are given a ``start_epoch``. So reconstruct the object first, then what it rests on.
    Points that are held out for validation keep the positions that the data gives: no step ever sees them.

    While the probe trains, its power is kept and its modes are made orthogonal once an epoch. While dr trains, the
    affine part of the displacements is taken out once an epoch: patterns hardly tell a scaled or rotated scan from a
    changed object and probe, and without this the positions drift while the loss still falls.

    Source: Maiden, Humphry, Sarahan, Kraus, Rodenburg, Ultramicroscopy 120 (2012) 64 (positions); Thibault, Menzel,
    Nature 494 (2013) 68 (modes).

    Attributes:
        object: How the specimen's transmission is parametrised.
        probe: What illuminates it at first.
        object_margin: Pixels of object around the outermost patches, for positions that move.
        project_affine: Whether displacements are kept free of shift, rotation, scale and shear of the whole scan.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("h5py",)

    probe: Probe
    object: Object = Pixels()
    object_margin: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    project_affine: bool = True

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Say what a precision means here."""
        if recipe.run.precision != "fp32":
            yield Problem(
                f'run.precision = "{recipe.run.precision}" changes nothing: complex numbers are computed in fp32',
                severity="note",
            )

    def groups(self) -> Mapping[str, bool]:
        """Return the groups: only the object trains unasked."""
        return {"object": True, "probe": False, "dr": False, "other": False}

    def build(self, data: Any) -> nn.Module:
        """Make the network."""
        from trainkit_ptychography.objects import Canvas
        from trainkit_ptychography.probe_modes import ProbeModes
        from trainkit_ptychography.single_slice_module import SingleSliceModule

        def make_object(shape: tuple[int, int]) -> nn.Module:
            return self.object.build(Canvas(shape, data.detector_shape, data.dtype, data.device, data.seed))

        probe = ProbeModes(self.probe.build(data), data.dtype, data.device)
        return SingleSliceModule(data, make_object, probe, self.object_margin, self.project_affine)

    def parameter_groups(self, model: Any) -> Mapping[str, Iterable[nn.Parameter]]:
        """Return the parameters of each group; "other" is empty, for models that add to this one."""
        return {"object": model.object.parameters(), "probe": model.probe.parameters(), "dr": [model.dr], "other": []}
