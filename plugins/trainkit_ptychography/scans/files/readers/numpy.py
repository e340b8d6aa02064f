"""Reads NumPy files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class NumPyReader(Reader):
    """NumPy files: ``.npz``, also packed with bzip2, or ``.npy`` with its other arrays in files beside it."""

    joins_files: ClassVar[bool] = True

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.assembly import read_scan
        from trainkit_ptychography.scans.files.numpy_live import NumPyFile

        return read_scan(
            settings,
            NumPyFile(settings.path),
            more=[NumPyFile(path, "data.more_files") for path in settings.more_files],
        )
