"""Reads NRRD files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage


@component
class NRRD(Reader):
    """NRRD files, as 3D Slicer writes them: in one file, or a header (``.nhdr``) and files of voxels.

    Voxels may be raw, or packed by gzip or bzip2. An axis without a direction in space, such as a list or a vector,
    holds the channels.

    Source: http://teem.sourceforge.net/nrrd/format.html
    """

    format: ClassVar[str] = "NRRD"
    endings: ClassVar[tuple[str, ...]] = (".nrrd", ".nhdr")

    def open(self, path: Path) -> StoredImage:
        """Read the header."""
        from trainkit_segmentation.files.readers.nrrd_live import open_nrrd

        return open_nrrd(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file of the header, then those of the voxels, if they are others."""
        from trainkit_segmentation.files.readers.nrrd_live import pieces_of

        return tuple(dict.fromkeys((path, *pieces_of(path).files)))
