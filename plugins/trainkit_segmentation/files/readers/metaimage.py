"""Reads MetaImage files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage


@component
class MetaImage(Reader):
    """MetaImage files, as ITK writes them: in one file (``.mha``), or a header (``.mhd``) and files of voxels.

    A fourth axis, or several numbers for each voxel, hold the channels.

    Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
    """

    format: ClassVar[str] = "MetaImage"
    endings: ClassVar[tuple[str, ...]] = (".mha", ".mhd")

    def open(self, path: Path) -> StoredImage:
        """Read the header."""
        from trainkit_segmentation.files.readers.metaimage_live import open_metaimage

        return open_metaimage(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file of the header, then those of the voxels, if they are others."""
        from trainkit_segmentation.files.readers.metaimage_live import pieces_of

        return tuple(dict.fromkeys((path, *pieces_of(path).files)))
