"""Scans in HDF5 files of any layout: the recipe says which dataset is what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import Problem, component, structure_settings
from trainkit_ptychography.scans.files.cxi import CXIDiffraction
from trainkit_ptychography.scans.files.foreign import is_hdf5
from trainkit_ptychography.scans.files.kind import FileDiffraction, needs_positions, needs_size
from trainkit_ptychography.scans.files.readers.hdf5 import HDF5Reader
from trainkit_ptychography.scans.files.readers.ptyd import PtydReader

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording


@component
class HDF5Diffraction(FileDiffraction):
    """Patterns and positions from an HDF5 file.

    Datasets are named by their full path in the file, for example "entry/data". Links and virtual datasets are followed
    inside the file, and into other files only if ``linked_files`` names them: otherwise a file could make trainkit read
    others on your machine.

    Attributes:
        linked_files: Other files that links and virtual datasets may lead to, for example the data files of a master
            file.
    """

    requires: ClassVar[tuple[str, ...]] = HDF5Reader.requires

    patterns: str | tuple[str, ...]
    linked_files: tuple[Path, ...] = ()

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise an HDF5 file with an array that looks like patterns, and what else names and shapes tell."""
        others = (CXIDiffraction, PtydReader)
        if not is_hdf5(path) or any(each.recognise(path) is not None for each in others):
            return None
        from trainkit_ptychography.scans.files.layout_live import settings_for

        return settings_for(path)

    @classmethod
    def contents(cls, settings: Mapping[str, Any]) -> Iterator[Any]:
        """Look into a few dozen patterns, and for the thickness of the specimen."""
        from trainkit_ptychography.scans.files.contents_live import contents_of
        from trainkit_ptychography.scans.files.layout_live import thickness_in

        data = structure_settings(cls, settings, "data")
        yield from contents_of(data, "zero_frequency" in settings, thickness_in(data.path))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what is given twice, or not at all."""
        yield from super().problems(recipe)
        yield from needs_size(self)
        yield from needs_positions(self)

    def read(self) -> Recording:
        """Open the file."""
        return HDF5Reader(linked_files=self.linked_files).read(self)
