"""Scans in NumPy files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from trainkit import Problem, component
from trainkit_ptychography.diffraction import DiffractionData

if TYPE_CHECKING:
    from trainkit.recipe.root import Recipe
    from trainkit_ptychography.scan import Recording

_positive = attrs.validators.optional(attrs.validators.gt(0.0))


@component
class NumPyDiffraction(DiffractionData):
    """Patterns and positions out of a NumPy file; also one packed with bzip2. Geometry is in pixels.

    Leading axes of length 1 are dropped. Objects (pickles) in such files are never read.

    Attributes:
        path: An ``.npz`` or ``.npz.bz2`` file; or an ``.npy`` file with the patterns.
        patterns: Array of the patterns, (points, rows, columns), or with two scan axes. Not looked at for ``.npy``.
        positions: Array of positions, (row, column) in pixels for each pattern. For ``.npy``: a file beside it.
        probe: Array of a guess of the probe: complex, (…, rows, columns), centred at (rows//2, columns//2). For
            ``.npy``: a file beside it.
        values: Whether patterns are intensities, or amplitudes (their square roots).
        zero_frequency: Where the undiffracted beam is: "centre" for pixel (rows//2, columns//2), "corner" for [0, 0].
        pixel_size_angstrom: Size of an object pixel, if it is known: then results are in Å too.
        wavelength_angstrom: Wavelength, if an aperture probe is to be made.
    """

    path: Path
    patterns: str = "data"
    positions: str = "scan"
    probe: str | None = None
    values: Literal["intensity", "amplitude"] = "intensity"
    zero_frequency: Literal["centre", "corner"] = "centre"
    pixel_size_angstrom: float | None = attrs.field(default=None, validator=_positive)
    wavelength_angstrom: float | None = attrs.field(default=None, validator=_positive)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the kind of file."""
        if not self.path.name.endswith((".npy", ".npz", ".npz.bz2")):
            yield Problem(f'"{self.path.name}" is no .npy, .npz or .npz.bz2 file', "path")

    def read(self) -> Recording:
        """Read the file."""
        from trainkit_ptychography.numpy_file import read_scan

        return read_scan(self)
