"""Reads HDF5 files of any layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class HDF5Reader(Reader):
    """HDF5 files of any layout: datasets are named by their full path in the file, for example "entry/data"."""

    requires: ClassVar[tuple[str, ...]] = ("h5py",)

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.assembly import read_scan
        from trainkit_ptychography.scans.files.hdf5_live import HDF5File

        return read_scan(settings, HDF5File(settings.path))
