"""Reads whatever RosettaSciIO reads: the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import component
from trainkit_ptychography import Reader

if TYPE_CHECKING:
    from trainkit_ptychography import FileDiffraction, Recording

Format = Literal["blockfile", "digitalmicrograph", "emd", "hspy", "mrc", "quantumdetector", "tia", "tvips"]
"""RosettaSciIO's names of formats that hold diffraction patterns and are safe to read: none of them runs code."""


@component
class RosettaSciIOReader(Reader):
    """Files of microscopes and detectors, opened by RosettaSciIO: DM3, DM4, MIB, MRC, EMD, BLO, HSPY, SER, TVIPS.

    Arrays are taken as RosettaSciIO gives them: scan axes first, then rows and columns of the detector, unless
    ``pattern_axes`` says otherwise. For MIB files, it turns rows upside down, as Merlin's own program shows them. The
    step of a raster is that of the file if the recipe gives none, and so are the size of detector pixels and the
    energy. A scan whose file does not say its shape needs ``raster`` with a shape. Masks and other arrays are ``.npy``
    files beside the file.

    Attributes:
        file_format: RosettaSciIO's name of the format. If left out, the file's ending tells.
        signal: Which of the file's signals holds the patterns, from 0. If left out, the only one that can.
    """

    requires: ClassVar[tuple[str, ...]] = ("rsciio", "h5py")
    says_geometry: ClassVar[bool] = True
    names_arrays: ClassVar[bool] = False

    file_format: Format | None = None
    signal: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_rosettasciio.reader_live import read

        return read(self, settings)
