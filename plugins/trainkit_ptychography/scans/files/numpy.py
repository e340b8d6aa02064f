"""Scans in NumPy files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs

from trainkit import Problem, component
from trainkit_ptychography.scans.files.kind import FileDiffraction, LengthUnit, needs_size
from trainkit_ptychography.scans.files.readers.empad import EMPADReader
from trainkit_ptychography.scans.files.readers.numpy import NumPyReader

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording

_PATTERNS = ("data", "patterns", "intensity", "intensities", "diffraction", "amplitude")
_POSITIONS = ("scan", "positions", "translation", "coordinates")


@component
class NumPyDiffraction(FileDiffraction):
    """Patterns and positions from a NumPy file: ``.npz``, also packed with bzip2, or ``.npy``.

    Arrays are named as in the archive. For an ``.npy`` file, which holds the patterns alone, all other arrays are files
    beside it. Objects (pickles) are never read. Packed archives are read into memory as a whole; ``.npy``, and ``.npz``
    of np.savez, can be streamed. Nion Swift's ``.ndata1`` is such an archive, with the array "data"; its calibrations
    are not read. A ``.raw`` file is taken to be an EMPAD's, as with the reader "empad".

    Attributes:
        patterns: Array of the patterns; ignored for ``.npy``.
        positions: Array of positions, (row, column) for each pattern. If left out, and if there is neither a raster nor
            another file with positions, "scan".
        positions_unit: Unit of positions and raster; if left out, object pixels.
    """

    unsaid_unit: ClassVar[LengthUnit] = "pixels"

    patterns: str | tuple[str, ...] = "data"

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise an archive of NumPy with an array of patterns, by the names in it."""
        if not path.is_file() or not path.name.endswith((".npz", ".npz.bz2", ".npy")):
            return None
        from trainkit_ptychography.scans.files.numpy_live import NumPyFile

        if path.suffix == ".npy":
            shape = NumPyFile(path).stored(path.name).shape
            return {"path": path, "patterns": path.name} if len(shape) in (3, 4) else None
        names = NumPyFile(path).names()
        patterns = next((name for name in _PATTERNS if name in names), None)
        positions = next((name for name in _POSITIONS if name in names), None)
        if patterns is None:
            return None
        found: dict[str, Any] = {"path": path, "patterns": patterns}
        if patterns == "amplitude":
            found["values"] = "amplitude"
        if positions is not None:
            found["positions"] = positions
        if "probe" in names:
            found["probe"] = "probe"
        return found

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the suffix of the file too."""
        yield from super().problems(recipe)
        yield from needs_size(self)
        if not self.path.name.endswith((".npy", ".npz", ".npz.bz2", ".ndata1", ".raw")):
            yield Problem(f'"{self.path.name}" is no .npy, .npz, .npz.bz2, .ndata1 or .raw file', "path")
        if self.path.suffix == ".raw" and self.more_files:
            yield Problem("files of this format are not joined: name one", "more_files")
        if self.raster is not None and self.positions_unit is None:
            yield Problem(
                "raster.step is taken in object pixels, since positions_unit does not say its unit: say "
                'positions_unit = "angstrom", or "pixels" if that is right',
                "raster",
                "warning",
            )
        if self.path.name.endswith(".bz2") and self.patterns_on == "disk":
            yield Problem("a packed file cannot be streamed: unpack it (bunzip2)", "patterns_on")

    def read(self) -> Recording:
        """Open the file."""
        settings = self
        if self.positions is None and self.positions_path is None and self.raster is None:
            settings = attrs.evolve(cast(Any, self), positions="scan")
        return (EMPADReader() if self.path.suffix == ".raw" else NumPyReader()).read(settings)
