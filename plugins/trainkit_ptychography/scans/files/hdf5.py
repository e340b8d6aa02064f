"""Scans in HDF5 files of any layout: the recipe says which dataset is what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from trainkit import Problem, component
from trainkit_ptychography.scans.files.kind import FileDiffraction, needs_size

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording


@component
class HDF5Diffraction(FileDiffraction):
    """Patterns and positions out of an HDF5 file.

    Datasets are named by their full path in the file, as "entry/data". Links to other places, external storage and
    virtual datasets are refused: they would let a file read others on your machine.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py",)

    patterns: str

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what is given twice, or not at all."""
        yield from super().problems(recipe)
        yield from needs_size(self)
        if (self.positions is None) == (self.raster is None):
            yield Problem("either positions names a dataset, or raster = { step = …, shape = […] } says where they are")

    def read(self) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.assembly import read_scan
        from trainkit_ptychography.scans.files.hdf5_live import HDF5File

        return read_scan(self, HDF5File(self.path))
