"""A probe whose amplitude in the aperture was measured without a specimen: its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from trainkit import INPUT_PATH, Problem, Progress, component
from trainkit_ptychography.probes.lens import Lens
from trainkit_ptychography.scans.files.suffixes import ARRAY_SUFFIXES
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Depth, Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction


@component
class VacuumProbe(Lens):
    """A measured vacuum pattern, the beam without a specimen, and a lens: for apertures that are not ideal discs.

    The amplitude of each detector pixel is the root of the pattern, its phase comes from the aberrations; defocus is
    what matters most. The pattern must be of the same camera, camera length and aperture as the scan. It is cropped,
    binned and padded about its own beam, as the scan's patterns are, unless it has as many pixels as they then have.

    Attributes:
        path: An ``.npy`` or ``.npz`` file, or an HDF5 file; it may be the file of the scan.
        name: Array or dataset: (rows, columns), or several patterns (…, rows, columns), of which the mean is taken.
            Ignored for ``.npy``.
        values: Whether these are intensities, or amplitudes (their square roots).
        flip: Axes along which it is turned around, as ``pattern_flip`` of the data: "rows" (upside down), "columns".
        zero_frequency: Where the beam is: "centre_of_mass" of what is brighter than ``dark_below``, rounded to whole
            pixels; "centre" for pixel (rows//2, columns//2), "corner" for [0, 0], or [row, column].
        dark_below: What is darker than this share of the disc's brightness is noise and becomes 0. 0 keeps all: for
            X-ray optics without a sharp edge.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    name: str = "vacuum"
    values: Literal["intensity", "amplitude"] = "intensity"
    flip: tuple[Literal["rows", "columns"], ...] = ()
    zero_frequency: Literal["centre", "corner", "centre_of_mass"] | tuple[float, float] = "centre_of_mass"
    dark_below: float = attrs.field(default=0.05, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the suffix of the file, the modes and the aberrations."""
        yield from super().problems(recipe)
        if self.path.suffix not in ARRAY_SUFFIXES:
            yield Problem(f'"{self.path.name}" is none of {", ".join(ARRAY_SUFFIXES)}', "path")

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Compare the pattern with those of the scan."""
        from trainkit_ptychography.probes.vacuum_live import inspect_vacuum

        if depth == "all" and isinstance(recipe.data, DiffractionData):
            yield from inspect_vacuum(self, recipe.data.read())

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Read the pattern, and return the probe, of one mode."""
        from trainkit_ptychography.probes.vacuum_live import vacuum_probe

        return vacuum_probe(self, data.scan, data.detector_shape)
