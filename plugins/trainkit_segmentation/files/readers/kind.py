"""The kind "reader": how image files of one format are read. A new format is one new file with a subclass."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainkit import Component, component

if TYPE_CHECKING:
    from trainkit_segmentation.files.stored import StoredImage


@component
class Reader(Component):
    """How image files of one format are read.

    No recipe names a reader: each file is read by the reader that claims it. A reader opens a file and says what its
    header declares. All else is done for every format alike: the limits of memory, scaling, NaN, label values.
    """

    entry_points: ClassVar[str] = "trainkit.segmentation.readers"
    format: ClassVar[str]
    """Name of the format, for messages."""
    endings: ClassVar[tuple[str, ...]]
    """How names of such files end, in lower case, for example ``(".nii", ".nii.gz")``."""

    def claims(self, path: Path) -> bool:
        """Return whether a file, or a folder that is one image, is of this format. By default, its ending decides."""
        return path.name.lower().endswith(self.endings) and not path.is_dir()

    @abstractmethod
    def open(self, path: Path) -> StoredImage:
        """Read and check the header, and return how the voxels are read.

        Raises:
            DataError: The file cannot be read, is shorter than its header needs, or is no image. Any other exception
                becomes a DataError that names the file.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return every file that an image is read from, in a fixed order; by default, the file itself.

        Raises:
            DataError: They cannot be found out.
        """
        return (path,)
