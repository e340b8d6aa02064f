"""Headers and voxels of NRRD files.

An axis of the file is one of space if it has a direction; the first in the file varies fastest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainkit import DataError
from trainkit_segmentation.files.detached import Pieces, TextHeader, listed_files, read_text_header
from trainkit_segmentation.files.header import Array, Header, check_affine
from trainkit_segmentation.files.stored import StoredImage
from trainkit_segmentation.files.units import InMillimetres, in_millimetres

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names}
_PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_SIGNS = {  # of the three coordinates, to make them (right, anterior, superior)
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_NO_SPACE = (
    "the header does not name a space, so where its axes point is a guess (left, posterior, superior); write the right "
    "one into it"
)
_SEGMENT = re.compile(r"(Segment\d+)_Name")
_SPATIAL_KINDS = ("domain", "space")


def open_nrrd(path: Path) -> StoredImage:
    """Read and check the header of a file.

    Raises:
        DataError: The file is not NRRD, shorter than its header needs, or no image of two or three dimensions.
    """
    fields = _fields(path)
    sizes = [int(each) for each in fields.field("sizes").split()]
    if len(sizes) != int(fields.field("dimension")) or min(sizes, default=0) < 1:
        raise DataError(f"{path}: the header is damaged: sizes are {sizes}")
    kind = " ".join(fields.field("type").lower().split())
    if kind not in _TYPE_OF:
        raise DataError(f"{path}: voxels must be integers or real numbers, got {kind}")
    dtype = np.dtype(_TYPE_OF[kind])
    endian = fields.of.get("endian", "little").lower()
    if endian not in ("little", "big"):
        raise DataError(f"{path}: the header is damaged: endian is {endian}")
    dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    geometry = _geometry(fields, sizes)
    space, channel_axis = geometry.space, geometry.channels
    check_affine(path, geometry.lengths.affine)
    pieces = _pieces(fields)
    num_bytes = math.prod(sizes) * dtype.itemsize
    pieces.check(num_bytes)
    x, y, z = (*(sizes[axis] for axis in space), 1)[:3]
    channels = 1 if channel_axis is None else sizes[channel_axis]
    if channels > 1 and any(_SEGMENT.fullmatch(key) for key in fields.pairs):
        raise DataError(
            f"{path}: its segments overlap, and are in {channels} layers, which cannot be read; export each segment "
            "into a file of its own"
        )
    header = Header(
        path,
        (x, y, z),
        channels,
        geometry.lengths.affine,
        open_question="; ".join(each for each in (geometry.question, geometry.lengths.question) if each) or None,
        has_no_form=(geometry.question or "").startswith(_NO_SPACE),
        has_no_spacing=geometry.has_no_spacing,
        names=_segment_names(fields.pairs),
        conversion=geometry.lengths.conversion,
    )
    order = (*space, *([] if channel_axis is None else [channel_axis]))
    order = (*order, *(axis for axis in range(len(sizes)) if axis not in order))
    return StoredImage(header, dtype, partial(_voxels, pieces, sizes, order, dtype, (x, y, z, channels)))


def pieces_of(path: Path) -> Pieces:
    """Return where the voxels of a file are.

    Raises:
        DataError: The header cannot be read.
    """
    return _pieces(_fields(path))


def _voxels(
    pieces: Pieces, sizes: Sequence[int], order: Sequence[int], dtype: np.dtype[Any], shape: Sequence[int]
) -> Array:
    flat = pieces.read(math.prod(sizes) * dtype.itemsize, dtype)
    return flat.reshape(sizes, order="F").transpose(order).reshape(shape)


def _fields(path: Path) -> TextHeader:
    text, end = read_text_header(path, b"")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if not lines or not re.fullmatch(r"NRRD\d{4}\s*", lines[0]):
        raise DataError(f"{path}: cannot be read as NRRD: it does not begin with such a header")
    of: dict[str, str] = {}
    pairs: dict[str, str] = {}
    files: list[str] = []
    for line in lines[1:]:
        if not line.strip() or line.startswith("#"):
            continue
        key, _, value = line.partition(":")
        if of.get("data file", "").upper().startswith("LIST") and list(of)[-1] == "data file":
            files.append(line.strip())
        elif value.startswith("="):
            pairs[key] = value[1:].strip()
        elif value:
            of[_name(key)] = value.strip()
        else:
            raise DataError(f"{path}: the header is damaged: {line[:40]!r} is no field")
    return TextHeader(path, of, end, tuple(files), pairs)


def _name(key: str) -> str:
    name = " ".join(key.lower().split())
    return {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}.get(name, name)


def _pieces(fields: TextHeader) -> Pieces:
    path = fields.path
    encoding = fields.field("encoding").lower()
    if encoding not in _PACKINGS:
        raise DataError(f'{path}: voxels of the encoding "{encoding}" cannot be read; save the file as raw or gzip')
    skip, lines = int(fields.of.get("byte skip", "0")), int(fields.of.get("line skip", "0"))
    named = fields.of.get("data file")
    if _PACKINGS[encoding] != "raw" and skip:
        raise DataError(f"{path}: bytes before packed voxels cannot be skipped; save the file as raw or gzip")
    if named is None:
        if lines:
            raise DataError(f"{path}: lines after the header cannot be skipped; save the file as raw or gzip")
        return Pieces(path, (path,), fields.end + skip if skip >= 0 else skip, _PACKINGS[encoding])
    names = fields.data_files if named.upper().startswith("LIST") else (named,)
    return Pieces(path, listed_files(path, names), skip, _PACKINGS[encoding], lines)


class _Geometry(NamedTuple):
    """Where the voxels of a file are.

    Attributes:
        space: The axes of the file that are axes of space.
        channels: The axis of channels; None: there is one channel.
        lengths: The affine.
        question: What is left open about where the axes point; None: nothing.
        has_no_spacing: Whether the header does not say how large a voxel is.
    """

    space: tuple[int, ...]
    channels: int | None
    lengths: InMillimetres
    question: str | None
    has_no_spacing: bool


def _geometry(fields: TextHeader, sizes: Sequence[int]) -> _Geometry:
    num = len(sizes)
    kinds = _words(fields, "kinds", num)
    directions = _directions(fields, num)
    if directions is not None:
        space = tuple(axis for axis in range(num) if directions[axis] is not None)
    elif any(kind in _SPATIAL_KINDS for kind in kinds):
        space = tuple(axis for axis in range(num) if kinds[axis] in _SPATIAL_KINDS)
    else:
        space = tuple(range(num))
    if len(space) > 3 and directions is None:  # a fourth axis of which nothing is known holds channels, if any
        space = space[:3]
    others = [axis for axis in range(num) if axis not in space and sizes[axis] > 1]
    if len(space) not in (2, 3) or len(others) > 1:
        raise DataError(
            f"{fields.path}: expected two or three axes of space and at most one of channels, got {len(space)} of "
            f"space in {num} axes of {'×'.join(map(str, sizes))}"
        )
    if directions is None:
        spacings = [float(each or "nan") for each in _words(fields, "spacings", num)]
        unknown = [axis for axis in space if not math.isfinite(spacings[axis])]
        affine = np.diag([*(1.0 if axis in unknown else spacings[axis] for axis in space), 1.0, 1.0][:4])
        affine[: len(space), 3] = _origin(fields, len(space))
        units = _quoted(fields, "units", num)
        units = [units[axis] for axis in space] if units else []
    else:
        unknown = []
        towards = [each for each in directions if each is not None]
        affine = _affine_of(towards, fields)
        affine[: len(towards[0]), 3] = _origin(fields, len(towards[0]))
        units = _quoted(fields, "space units", None)
    named = fields.of.get("space", "").lower().removesuffix("-time")
    question = None
    if not named and len(space) == 3:
        question = _NO_SPACE
    elif named and named not in _SIGNS:
        question = (
            f'the space of the header is "{named[:40]}", which does not say where its axes point; it is taken as '
            "left-posterior-superior"
        )
    if 0 < len(unknown) < len(space):
        lacking = (
            f"the header gives no spacing for the axis {unknown[0] + 1}, and 1 mm is taken; write it into the header"
        )
        question = f"{question}; {lacking}" if question else lacking
    turned = np.diag([*_SIGNS.get(named, _SIGNS["lps"]), 1.0]) @ affine
    return _Geometry(
        space, others[0] if others else None, in_millimetres(turned, units), question, len(unknown) == len(space)
    )


def _affine_of(directions: Sequence[tuple[float, ...]], fields: TextHeader) -> Array:
    """Return the affine of axes with directions, in the header's space and units."""
    affine = np.eye(4)
    dimensions = len(directions[0])
    for place, direction in enumerate(directions):
        if len(direction) != dimensions or dimensions not in (2, 3):
            raise DataError(f"{fields.path}: the header is damaged: a direction has {len(direction)} coordinates")
        affine[:dimensions, place] = direction
    return affine


def _origin(fields: TextHeader, dimensions: int) -> Sequence[float]:
    """Return where the first voxel is; zeros, if the header does not say it."""
    if "space origin" not in fields.of:
        return [0.0] * dimensions
    (origin,) = _vectors(fields, "space origin")
    if origin is None or len(origin) < dimensions:
        raise DataError(f"{fields.path}: the header is damaged: space origin is {fields.of['space origin'][:40]}")
    return origin[:dimensions]


def _directions(fields: TextHeader, num: int) -> list[tuple[float, ...] | None] | None:
    if "space directions" not in fields.of:
        return None
    found = _vectors(fields, "space directions")
    # In a space of four dimensions, which ITK writes, an axis that leads nowhere in the first three holds channels.
    found = [each and each[:3] if each and len(each) == 4 else each for each in found]
    found = [each if each and any(each) else None for each in found]
    if len(found) != num or not any(found):
        raise DataError(f"{fields.path}: the header is damaged: there are {len(found)} space directions for {num} axes")
    return found


def _vectors(fields: TextHeader, name: str) -> list[tuple[float, ...] | None]:
    """Return the vectors of a field, None where it says "none"."""
    found: list[tuple[float, ...] | None] = []
    for word in re.findall(r"none|\([^()]*\)|\S+", fields.of[name]):
        if word == "none":
            found.append(None)
        elif word.startswith("(") and word.endswith(")"):
            found.append(tuple(float(each) for each in word[1:-1].split(",")))
        else:
            raise DataError(f"{fields.path}: the header is damaged: {word[:40]!r} is no vector")
    return [None if each is not None and any(math.isnan(value) for value in each) else each for each in found]


def _words(fields: TextHeader, name: str, num: int) -> list[str]:
    words = fields.of.get(name, "").lower().split()
    if words and len(words) != num:
        raise DataError(f"{fields.path}: the header is damaged: there are {len(words)} {name} for {num} axes")
    return words or [""] * num


def _quoted(fields: TextHeader, name: str, num: int | None) -> list[str]:
    """Return the quoted texts of a field; none, if it is not there or has another number of them."""
    found = re.findall(r'"([^"]*)"', fields.of.get(name, ""))
    return found if num in (None, len(found)) else []


def _segment_names(pairs: Mapping[str, str]) -> dict[int, str]:
    """Return the names of a segmentation of 3D Slicer by label value."""
    found: dict[int, str] = {}
    for key, name in pairs.items():
        if match := _SEGMENT.fullmatch(key):
            value = pairs.get(f"{match[1]}_LabelValue", "")
            if value.isdigit():
                found[int(value)] = name
    return found
