"""An object that begins with what the patterns show in one go: its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import RecipeError, component
from trainkit_ptychography.direct.kind import DirectMethod, as_method
from trainkit_ptychography.objects.kind import Object, ObjectGeometry

if TYPE_CHECKING:
    from torch import nn


@component
class ObjectFromData(Object):
    """Pixels, as "pixels", that begin with an object that a direct method makes from the patterns in seconds.

    For a first look at a scan, for a check of the geometry, and as a start for training: ``method = "ssb"`` for a thin
    specimen, "parallax" for a defocused probe and few electrons, "dpc" for a probe near focus and strong phases;
    ``trainkit show NAME`` says more of each.

    The phase is in rad. A method sees each frequency of the phase multiplied by a transfer, which is 0 where the method
    is blind; a Wiener filter divides by it. How strong that filter is, and by what factor the phase is scaled at the
    end, is chosen by how well a few patterns fit. The mean phase is 0, since no pattern tells it; amplitudes are 1. Of
    several slices, each gets an equal share, and the probe in the middle of the specimen is taken. Where no pattern was
    taken, the phase fades to 0. Patterns that are held out have no part in it.

    ``check --data``, and the run at its beginning, compare it with an empty object by patterns that are held out.

    Attributes:
        kind: "phase_and_amplitude", or "phase_only" for a specimen that absorbs nothing.
        method: A name, or a table such as ``{ use = "parallax" }``.
    """

    has_pixels: ClassVar[bool] = True
    made_from_patterns: ClassVar[bool] = True
    takes_slices: ClassVar[bool] = True

    kind: Literal["phase_and_amplitude", "phase_only"] = "phase_and_amplitude"
    method: DirectMethod | str = attrs.field(default="ssb", converter=as_method)

    def begins_with(self) -> str | None:
        """Return that it begins with the patterns, and how."""
        assert not isinstance(self.method, str)  # `as_method` made it one
        return f"a phase by {self.method.title}"

    def build(self, geometry: ObjectGeometry) -> nn.Module:
        """Make the pixels.

        Raises:
            DataError: The patterns or the probe do not allow the method.
            RecipeError: The model does not give the patterns.
        """
        from trainkit_ptychography.objects.from_data_live import DirectObject

        if geometry.seen is None:
            raise RecipeError('this model does not say what an object can begin with: object = { use = "pixels" }')
        assert not isinstance(self.method, str)  # `as_method` made it one
        return DirectObject(geometry, self.kind == "phase_and_amplitude", self.method)
