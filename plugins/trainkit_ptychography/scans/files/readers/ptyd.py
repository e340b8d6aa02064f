"""Reads ptypy's prepared data."""

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
class PtydReader(Reader):
    """ptypy's prepared data (``.ptyd``): its chunks are joined in their order, and its weights are masks.

    Positions (row, column) are in m. Energy (of photons, in keV), distance and size of detector pixels, and the centre,
    are those of the file's ``meta`` where the recipe gives none.

    Source: ptypy, core/data.py (PtyScan, PtydScan).

    Attributes:
        linked_files: Files that the chunks may be in ("link" in ptypy): each that the file links to must be named.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    says_geometry: ClassVar[bool] = True
    names_arrays: ClassVar[bool] = False

    linked_files: tuple[Path, ...] = ()

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise an HDF5 file with ptypy's chunks."""
        from trainkit_ptychography.scans.files.foreign import holds_hdf5
        from trainkit_ptychography.scans.files.hdf5_live import HDF5File

        if not holds_hdf5(path):
            return None
        file = HDF5File(path)
        with file.reading():
            return {"path": path} if file.first(["chunks/0/data"]) else None

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.ptyd_live import read_ptyd

        return read_ptyd(settings, self.linked_files)
