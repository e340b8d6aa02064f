"""A probe that was saved in a file: its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from trainkit import INPUT_PATH, Problem, component
from trainkit_ptychography.probes.kind import Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")


@component
class ProbeFromFile(Probe):
    """A probe from a file of its own, with all its modes, for example ``result.h5`` of an earlier run.

    Its pixels must be those of this run: as many, and of the same size. The modes' powers are kept in proportion.

    Attributes:
        path: An ``.npy``, ``.npz``, ``.h5`` or ``.hdf5`` file.
        name: Array or dataset: complex, (rows, columns) or (modes, rows, columns); more axes before only if they are of
            length 1. Ignored for ``.npy``. In our own results it is called "probe".
        centre: Where the probe's middle is: "centre" for pixel (rows//2, columns//2), "corner" for [0, 0].
        modes: Number of modes to take, from the first. If left out, all.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    name: str = "probe"
    centre: Literal["centre", "corner"] = "centre"
    modes: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the suffix of the file."""
        if self.path.suffix not in SUFFIXES:
            yield Problem(f'"{self.path.name}" is none of {", ".join(SUFFIXES)}', "path")

    def build(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Read the file."""
        from trainkit_ptychography.probes.from_file_live import read_probe

        return read_probe(self, data.detector_shape)
