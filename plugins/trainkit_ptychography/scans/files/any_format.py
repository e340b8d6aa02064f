"""Scans in files of any format that there is a reader for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import Problem, component, registered
from trainkit_ptychography.scans.files.kind import FileDiffraction, needs_positions, needs_size
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.scans.scan import Recording


@component
class AnyFormatDiffraction(FileDiffraction):
    """Patterns and positions from a file of any format for which there is a reader; other packages can add readers.

    For HDF5, NumPy and CXI files, "diffraction_hdf5", "diffraction_numpy" and "diffraction_cxi" are shorter.

    Attributes:
        reader: How the file is read.
    """

    reader: Reader

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Ask the readers; a file that two of them know is not recognised."""
        if not path.is_file():
            return None
        found = []
        for each in registered(Reader.entry_points):
            reader = each.load()
            settings = reader.recognise(path)
            if settings is not None:
                found.append({"path": path, "reader": {"use": each.name}, **settings})
        return found[0] if len(found) == 1 else None

    def file_says_geometry(self) -> bool:
        """Return whether files of this format say themselves where patterns and positions are."""
        return self.reader.says_geometry

    def knows_axes(self) -> bool:
        """Return whether the settings, or files of this format, say which axes are those of the detector."""
        return self.reader.orders_axes or self.pattern_axes is not None

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what the file's format leaves to the recipe."""
        yield from super().problems(recipe)
        if not self.reader.says_geometry:
            if self.patterns is None and self.reader.names_arrays:
                yield "patterns must name the array of the patterns: files of this format do not say it"
            yield from needs_size(self)
            yield from needs_positions(self)
        if self.more_files and not self.reader.joins_files:
            yield Problem("files of this format are not joined: name one", "more_files")

    def read(self) -> Recording:
        """Read the file."""
        return self.reader.read(self)
