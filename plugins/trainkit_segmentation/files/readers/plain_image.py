"""Reads planes: PNG, TIFF and other files of cameras and microscopes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage


@component
class PlainImage(Reader):
    """PNG, TIFF, JPEG and BMP files: volumes of one slice, with colours as channels.

    x goes to the right in the picture, y down. The pages of a TIFF file are slices. If a file has a palette, its
    numbers are read, not the colours.
    """

    requires: ClassVar[tuple[str, ...]] = ("PIL",)
    format: ClassVar[str] = "a picture"
    endings: ClassVar[tuple[str, ...]] = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")

    def open(self, path: Path) -> StoredImage:
        """Read the header."""
        from trainkit_segmentation.files.readers.plain_image_live import open_picture

        return open_picture(path)
