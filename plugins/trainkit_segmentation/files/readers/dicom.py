"""Reads DICOM series."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import DataError, component
from trainkit_segmentation.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage

_MOST_LOOKED_AT = 20  # files of a folder


@component
class DICOM(Reader):
    """DICOM series of slices, by SimpleITK: a folder that holds one series, or any file of a series.

    Slices are ordered by their position. A series with missing or irregular slices is refused. A series whose slices
    are shifted against each other (gantry tilt) is read as it is, with a doubt.
    """

    requires: ClassVar[tuple[str, ...]] = ("SimpleITK",)
    format: ClassVar[str] = "DICOM"
    endings: ClassVar[tuple[str, ...]] = (".dcm", ".dicom", ".ima")

    def claims(self, path: Path) -> bool:
        """Return whether a file is DICOM, or a folder holds such files, which often have no ending."""
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
            return any(self.claims(each) for each in files[:_MOST_LOOKED_AT])
        if path.name.lower().endswith(self.endings):
            return True
        has_no_ending = path.suffix.removeprefix(".").isdigit() or not path.suffix
        return has_no_ending and path.is_file() and _is_marked(path)

    def open(self, path: Path) -> StoredImage:
        """Read the headers of all slices."""
        _check_installed(path)
        from trainkit_segmentation.files.readers.dicom_live import open_series

        return open_series(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files of the series, slice by slice."""
        _check_installed(path)
        from trainkit_segmentation.files.readers.dicom_live import files_of_series

        return files_of_series(path)


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _check_installed(path: Path) -> None:
    if find_spec("SimpleITK") is None:
        raise DataError(f"{path}: DICOM is read by SimpleITK, which is not installed: pip install 'trainkit[itk]'")
