"""The kind "reader": how scans in files of one format are read. A new format is one new file with a subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit import Component, component

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording


@component
class Reader(Component):
    """How scans in files of one format are read.

    For a format that holds arrays under names, write an `ArrayFile` and give it, with the settings, to `read_scan`,
    which does the rest: units, orientation, beam, bad pixels, cropping, streaming. For other formats, make the
    `Recording`.
    """

    entry_points: ClassVar[str] = "trainkit.ptychography.readers"
    says_geometry: ClassVar[bool] = False
    """Whether files say themselves where patterns and positions are, and how large a pixel is."""

    names_arrays: ClassVar[bool] = True
    """Whether files hold arrays under names, so that ``patterns`` must name one of them."""

    orders_axes: ClassVar[bool] = True
    """Whether the axes of patterns are in one order in all files; otherwise ``pattern_axes`` must say it."""

    joins_files: ClassVar[bool] = False
    """Whether the files of ``more_files`` are read too."""

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Return what is certain about a file that this reader reads, as settings; None: it is of another format.

        Args:
            path: A file.
        """
        return None

    @abstractmethod
    def read(self, settings: FileDiffraction) -> Recording:
        """Read the scan that settings describe, in the conventions of `Recording`; settings take precedence.

        Raises:
            DataError: The file is missing, damaged or does not fit the settings.
        """
