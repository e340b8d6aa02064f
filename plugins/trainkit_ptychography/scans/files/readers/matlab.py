"""Reads MATLAB's files of any version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class MATLABReader(Reader):
    """MATLAB's ``.mat`` files: level 5 (versions 5 to 7), and 7.3, which is HDF5. Arrays are named as in MATLAB.

    In files of level 5, axes are in MATLAB's order, (rows, columns, points), so ``pattern_axes`` is usually "yxn" and
    ``probe_axes`` of several modes "yxm". In 7.3 they are reversed: "nxy" and "mxy". Neither is guessed. Structures,
    cells, sparse matrices and objects are not read.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py", "scipy")
    orders_axes: ClassVar[bool] = False

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a ``.mat`` file with one array that can be patterns."""
        from trainkit_ptychography.scans.files.foreign import holds_hdf5
        from trainkit_ptychography.scans.files.layout_live import settings_for
        from trainkit_ptychography.scans.files.matlab_live import MATFile

        if path.suffix.lower() != ".mat":
            return None
        if holds_hdf5(path):
            return settings_for(path)
        patterns = MATFile(path).largest()
        return None if patterns is None else {"path": path, "patterns": patterns}

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.foreign import holds_hdf5
        from trainkit_ptychography.scans.files.matlab_live import read_level_5
        from trainkit_ptychography.scans.files.readers.hdf5 import HDF5Reader

        return HDF5Reader().read(settings) if holds_hdf5(settings.path) else read_level_5(settings)
