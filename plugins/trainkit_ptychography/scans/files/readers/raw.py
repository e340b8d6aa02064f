"""Reads raw numbers: frames one after the other, without a header that says what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import component
from trainkit_ptychography.scans.files.readers.kind import Reader

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction
    from trainkit_ptychography.scans.scan import Recording

NumberType = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
"""What raw numbers may be."""


@component
class RawReader(Reader):
    """Raw numbers: frames one after the other, for example of a camera's own program. The recipe says what they are.

    The file must end where a frame ends. Other arrays (masks, a probe) are ``.npy`` files beside it.

    Attributes:
        frame_shape: Rows and columns of a frame.
        dtype: What a number is.
        byte_order: Which byte of a number comes first: "little" or "big".
        header_bytes: Bytes before the first frame.
        gap_bytes: Bytes after each frame that are no part of it, for example a footer or rows that hold no counts.
    """

    names_arrays: ClassVar[bool] = False

    frame_shape: tuple[int, int] = attrs.field(validator=attrs.validators.deep_iterable(attrs.validators.ge(1)))
    dtype: NumberType
    byte_order: Literal["little", "big"] = "little"
    header_bytes: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    gap_bytes: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    def read(self, settings: FileDiffraction) -> Recording:
        """Open the file."""
        from trainkit_ptychography.scans.files.raw_live import RawFile, RawLayout, read_raw

        layout = RawLayout(self.frame_shape, self.dtype, self.byte_order, self.header_bytes, self.gap_bytes)
        return read_raw(settings, RawFile(settings.path, layout))
