"""A probe that was saved in a file: its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from trainkit import INPUT_PATH, Problem, component
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.scans.files.suffixes import ARRAY_SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Depth, Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class ProbeFromFile(Probe):
    """A probe from a file of its own, with all its modes, for example ``result.h5`` of an earlier run.

    Its pixels must be those of this run: as many, and of the same size.

    Attributes:
        path: An ``.npy`` or ``.npz`` file, or an HDF5 file (``.h5``, ``.hdf5``, ``.cxi``, ``.nxs``, or
            ``.mat`` of Matlab 7.3).
        name: Array or dataset: complex, (rows, columns) or (modes, rows, columns); more axes before only if they are of
            length 1. Ignored for ``.npy``. In our own results it is called "probe".
        axes: Order of the array's axes if it differs: "m" modes, "y" and "x" rows and columns. "mxy" suits files
            in which Matlab wrote (rows, columns, modes), and "yxm" NumPy arrays whose modes come last.
        centre: Where the probe's middle is: "centre" for pixel (rows//2, columns//2), "corner" for [0, 0].
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    name: str = "probe"
    axes: str | None = None
    centre: Literal["centre", "corner"] = "centre"

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the suffix of the file, and the modes."""
        yield from super().problems(recipe)
        if self.path.suffix not in ARRAY_SUFFIXES:
            yield Problem(f'"{self.path.name}" is none of {", ".join(ARRAY_SUFFIXES)}', "path")
        if self.axes is not None and sorted(self.axes) not in (list("xy"), list("mxy")):
            yield Problem('must have each of the letters y, x once, and m if there are modes: "myx" or "mxy"', "axes")

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem]:
        """Read the file, and say how its axes are taken."""
        from trainkit_ptychography.probes.from_file_live import inspect_probe

        yield from inspect_probe(self)

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Read the file."""
        from trainkit_ptychography.probes.from_file_live import read_probe

        return read_probe(self, data.detector_shape)
