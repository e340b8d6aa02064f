"""Walks over the elements of a DICOM file before a library reads it.

GDCM allocates whatever length an element declares, up to 4 GB, before it notices that the file is shorter.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

from trainkit import DataError

_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_META, _ITEM = 0x0002, 0xFFFE  # groups: of what is written before the data set, and of the marks of items
_TRANSFER_SYNTAX, _MODALITY, _PIXELS = (0x0002, 0x0010), (0x0008, 0x0060), (0x7FE0, 0x0010)
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_KINDS = (*_LONG, *_SHORT)
_UNDEFINED = 0xFFFFFFFF


def modality_of(path: Path) -> str:
    """Return the modality of a DICOM file; "", if it has none or cannot be walked over.

    Raises:
        DataError: An element declares more bytes than the file has.
    """
    size = path.stat().st_size
    modality, syntax, in_pixels = b"", b"", False
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return ""
        while (begin := file.tell()) + 8 <= size:
            group = int.from_bytes(file.read(2), "little")
            file.seek(begin)
            if group != _META and not syntax:
                raise DataError(f"{path}: the file is damaged: it does not say how its elements are written")
            if group != _META and syntax == _DEFLATED:
                break
            is_implicit = group != _META and syntax == _IMPLICIT
            tag, kind, length = _head(
                file, "big" if group != _META and syntax == _BIG_ENDIAN else "little", is_implicit
            )
            if length == _UNDEFINED or kind == b"SQ" or (tag[0] == _ITEM and not in_pixels):
                in_pixels = in_pixels or tag == _PIXELS
                continue  # what is inside comes next
            if kind not in _KINDS and tag[0] != _ITEM and not is_implicit:
                raise DataError(
                    f"{path}: the file is damaged: its element {tag[0]:04x},{tag[1]:04x} is of no kind that there is"
                )
            after = file.tell() + length
            if after > size:
                raise DataError(
                    f"{path}: the file is truncated or damaged: its element {tag[0]:04x},{tag[1]:04x} needs {length} "
                    f"bytes, {size - file.tell()} are left"
                )
            if tag in (_TRANSFER_SYNTAX, _MODALITY):
                value = file.read(min(length, 64)).strip(b"\0 ")
                syntax, modality = (value, modality) if tag == _TRANSFER_SYNTAX else (syntax, modality or value)
            file.seek(after)
    return modality.decode("ascii", errors="replace")


def _head(file: BinaryIO, order: Literal["little", "big"], is_implicit: bool) -> tuple[tuple[int, int], bytes, int]:
    """Read the tag of an element, the kind of its value ("" if the file does not say it) and its length in bytes."""
    tag = int.from_bytes(file.read(2), order), int.from_bytes(file.read(2), order)
    if is_implicit or tag[0] == _ITEM:
        return tag, b"", int.from_bytes(file.read(4), order)
    kind = file.read(2)
    if kind in _LONG:
        file.seek(2, 1)
        return tag, kind, int.from_bytes(file.read(4), order)
    return tag, kind, int.from_bytes(file.read(2), order)
