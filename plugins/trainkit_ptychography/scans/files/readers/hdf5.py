"""Reads HDF5 files of any layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class HDF5Reader(Reader):
    """HDF5 files of any layout: datasets are named by their full path in the file, for example "entry/data".

    Attributes:
        linked_files: Other files that links and virtual datasets may lead to, for example the data files of a master
            file.
    """

    requires: ClassVar[tuple[str, ...]] = ("h5py",)
    joins_files: ClassVar[bool] = True

    linked_files: tuple[Path, ...] = ()

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.assembly import read_scan
        from trainkit_ptychography.scans.files.hdf5_doubts import with_doubts
        from trainkit_ptychography.scans.files.hdf5_live import HDF5File

        file = HDF5File(settings.path, linked=self.linked_files)
        more = [HDF5File(path, "data.more_files", self.linked_files) for path in settings.more_files]
        return with_doubts(read_scan(settings, file, more=more), settings, file, more=more)
