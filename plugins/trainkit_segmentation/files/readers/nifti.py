"""Reads NIfTI files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_segmentation.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage


@component
class NIfTI(Reader):
    """NIfTI files of version 1 or 2, in one file, packed or not.

    Files have three dimensions, or four with the channels last. The sform says where voxels are, or else the qform.
    """

    requires: ClassVar[tuple[str, ...]] = ("nibabel",)
    format: ClassVar[str] = "NIfTI"
    endings: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz", ".nii.bz2", ".nii.zst")

    def open(self, path: Path) -> StoredImage:
        """Read the header."""
        from trainkit_segmentation.files.readers.nifti_live import open_nifti

        return open_nifti(path)
