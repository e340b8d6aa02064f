"""Further files of a reconstruction, for other programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import Context, Data, Hook, Problem, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe

Form = Literal["cxi", "numpy", "tiff"]


@component
class ReconstructionFiles(Hook):
    """Writes the reconstruction at the end of a run, beside ``result.h5``, in forms that other programs read.

    "cxi": ``result.cxi``, with object, probe, scan points and where they come from. "numpy": ``result.npz``, with the
    arrays of ``result.h5`` under the same names. "tiff": stacks that ImageJ and Fiji open with their values and sizes,
    of phase and amplitude a page for each slice, and of the probe's amplitude a page for each mode.

    Attributes:
        forms: Which of them.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    phase: ClassVar[Literal["log"]] = "log"

    forms: tuple[Form, ...] = attrs.field(default=("cxi", "numpy", "tiff"))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that a form is named."""
        if not self.forms:
            yield Problem('name at least one of "cxi", "numpy", "tiff"', "forms")

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_ptychography.hooks.reconstruction_files_live import ReconstructionWriter

        return ReconstructionWriter(self.forms)
