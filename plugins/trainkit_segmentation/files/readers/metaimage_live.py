"""Headers and voxels of MetaImage files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainkit import DataError
from trainkit_segmentation.files.detached import Pieces, TextHeader, listed_files, read_text_header
from trainkit_segmentation.files.header import Array, Header, check_affine, ras_from_lps
from trainkit_segmentation.files.stored import StoredImage
from trainkit_segmentation.files.units import in_millimetres

_TYPE_OF = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # MetaIO takes a long for 4 bytes
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LAST = "ElementDataFile"
_SPACINGS = ("ElementSpacing", "ElementSize")


def open_metaimage(path: Path) -> StoredImage:
    """Read and check the header of a file.

    Raises:
        DataError: The file is not MetaImage, shorter than its header needs, or no image of two to four dimensions.
    """
    fields = _fields(path)
    num = int(fields.field("NDims"))
    sizes = [int(each) for each in fields.field("DimSize").split()]
    if len(sizes) != num or min(sizes, default=0) < 1:
        raise DataError(f"{path}: the header is damaged: DimSize is {sizes} in {num} dimensions")
    values = int(fields.of.get("ElementNumberOfChannels", "1"))
    later = math.prod(sizes[3:])
    if num < 2 or values < 1 or (later > 1 and (values > 1 or len([n for n in sizes[3:] if n > 1]) > 1)):
        raise DataError(
            f"{path}: expected two or three axes of space and at most one of channels, got {'×'.join(map(str, sizes))} "
            f"with {values} numbers each"
        )
    kind = fields.field("ElementType").upper().removesuffix("_ARRAY")
    if kind not in _TYPE_OF:
        raise DataError(f"{path}: voxels must be integers or real numbers, got {kind}")
    big = _is_true(fields.of.get("ElementByteOrderMSB", fields.of.get("BinaryDataByteOrderMSB", "False")))
    dtype = np.dtype(_TYPE_OF[kind]).newbyteorder(">" if big else "<")
    lengths = in_millimetres(_affine(fields, num), (fields.of.get("DistanceUnits", ""),) * 3)
    check_affine(path, lengths.affine)
    pieces = _pieces(fields)
    pieces.check(math.prod(sizes) * values * dtype.itemsize)
    x, y, z = (*sizes, 1)[:3]
    header = Header(
        path,
        (x, y, z),
        values * later,
        lengths.affine,
        open_question="; ".join(each for each in (lengths.question, _scaling(fields)) if each) or None,
        has_no_spacing=not {*_SPACINGS} & {*fields.of},
        conversion=lengths.conversion,
    )
    return StoredImage(header, dtype, partial(_voxels, pieces, values, (x, y, z, later), dtype))


def pieces_of(path: Path) -> Pieces:
    """Return where the voxels of a file are.

    Raises:
        DataError: The header cannot be read.
    """
    return _pieces(_fields(path))


def _voxels(pieces: Pieces, values: int, shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> Array:
    flat = pieces.read(values * math.prod(shape) * dtype.itemsize, dtype)
    array = flat.reshape((values, *shape), order="F")  # of a voxel, the numbers stand together
    return array[0] if values == 1 else np.moveaxis(array[..., 0], 0, -1)


def _fields(path: Path) -> TextHeader:
    text, end = read_text_header(path, _LAST.encode())
    of: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            of[name.strip()] = value.strip()
        elif line.strip():
            raise DataError(f"{path}: cannot be read as MetaImage: {line[:40]!r} is no line of such a header")
    if _LAST not in of or of.get("ObjectType", "Image").lower() != "image":
        raise DataError(f"{path}: cannot be read as MetaImage: it does not begin with the header of an image")
    files: tuple[str, ...] = ()
    if of[_LAST].upper().startswith("LIST"):
        whole, _ = read_text_header(path, b"\0")  # to the end of the file
        files = tuple(line.strip() for line in whole[len(text) :].split("\n") if line.strip())
    return TextHeader(path, of, end, files)


def _is_true(text: str) -> bool:
    return text[:1].upper() in ("T", "1", "Y")


def _pieces(fields: TextHeader) -> Pieces:
    if not _is_true(fields.of.get("BinaryData", "True")):
        raise DataError(f"{fields.path}: voxels are written as text; save the file in the binary form")
    packing = "zlib" if _is_true(fields.of.get("CompressedData", "False")) else "raw"
    skip = int(fields.of.get("HeaderSize", "0"))
    named = fields.of[_LAST]
    if named.upper() == "LOCAL":
        return Pieces(fields.path, (fields.path,), fields.end, packing)
    names = fields.data_files if named.upper().startswith("LIST") else (named,)
    return Pieces(fields.path, listed_files(fields.path, names), skip, packing)


def _affine(fields: TextHeader, num: int) -> Array:
    """Return the affine to (right, anterior, superior), in the header's units."""
    space = min(num, 3)
    spacing = _numbers(fields, _SPACINGS, num, [1.0] * num)
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), num * num, np.eye(num).ravel().tolist())
    origin = _numbers(fields, ("Offset", "Position", "Origin"), num, [0.0] * num)
    affine = np.eye(4)
    # A row of the matrix is the direction of an axis.
    affine[:space, :space] = np.reshape(matrix, (num, num)).T[:space, :space] * spacing[:space]
    affine[:space, 3] = origin[:space]
    return ras_from_lps(affine)  # MetaImage is (left, posterior, superior)


def _scaling(fields: TextHeader) -> str | None:
    """Return a sentence on a scaling that the header declares; None: it declares none."""
    for name, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if float(fields.of.get(name, neutral)) != neutral:
            return (
                f"{name} = {fields.of[name]} in the header is not applied, as ITK does not apply it; scale the voxels"
            )
    return None


def _numbers(fields: TextHeader, names: Sequence[str], count: int, default: Sequence[float]) -> Sequence[float]:
    """Return the numbers of the first field that is there."""
    for name in names:
        if name in fields.of:
            found = [float(each) for each in fields.of[name].split()]
            if len(found) != count:
                raise DataError(
                    f"{fields.path}: the header is damaged: {name} has {len(found)} numbers instead of {count}"
                )
            return found
    return default
