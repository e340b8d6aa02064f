"""Headers and voxels of NIfTI files.

What a header declares is compared with the size of the file before voxels are read, and hardly more is unpacked than it
declares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import Opener

from trainkit import DataError
from trainkit_segmentation.files.header import Array, Header, check_affine, corners_apart, is_close
from trainkit_segmentation.files.stored import (
    MOST_UNPACKED_BY_DEFLATE,
    StoredImage,
    check_size,
    check_type,
    read_exactly,
)
from trainkit_segmentation.files.units import in_millimetres

_KINDS: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}  # by the size of the header
_MOST_UNPACKED = {".gz": MOST_UNPACKED_BY_DEFLATE, ".nii": 1}
_MOST_BEFORE = 1 << 26  # bytes of extensions between header and voxels
_UNIT_OF = {1: "m", 2: "mm", 3: "\u00b5m"}  # by the lowest three bits of xyzt_units; 0: unknown
_NO_FORM = (
    "the header has neither qform nor sform, so where its axes point is a guess (left, anterior, superior); write the "
    "right orientation into it"
)
_WORTH_TELLING = 30  # nibabel's level of a header's fault that it cannot tell how to correct


def open_nifti(path: Path) -> StoredImage:
    """Read and check the header of a file.

    Raises:
        DataError: The file is not NIfTI, shorter than its header needs, or not three-dimensional.
    """
    with Opener(str(path)) as file:
        block = file.read(540)
    size = int.from_bytes(block[:4], "little")
    size = size if size in _KINDS else int.from_bytes(block[:4], "big")
    if size not in _KINDS or len(block) < size:
        misnamed = path.suffix.lower() == ".nii" and block[:2] == b"\x1f\x8b"
        packed = " (it is packed, but its name does not end in .gz)" if misnamed else ""
        raise DataError(f"{path}: cannot be read as NIfTI: it does not begin with such a header{packed}")
    raw = _KINDS[size](block[:size], check=False)
    if raw["magic"].item() == raw.pair_magic:
        raise DataError(f"{path}: header and voxels are in two files (.hdr and .img); convert them to one .nii file")
    if raw["magic"].item() != raw.single_magic:
        raise DataError(f"{path}: cannot be read as NIfTI: the header lacks the mark of the format")
    faults = _Faults()
    with np.errstate(all="ignore"):
        raw.check_fix(logger=faults)
        units = (_UNIT_OF.get(raw["xyzt_units"].item() & 7, ""),) * 3
        lengths = in_millimetres(np.asarray(raw.get_best_affine(), dtype=np.float64), units)
        shape = _shape(path, raw.get_data_shape())
        dtype = raw.get_data_dtype()
        start = float(raw["vox_offset"])
        question = _open_question(raw, shape, units)
    check_type(path, dtype)
    check_affine(path, lengths.affine)
    if not (size + 4 <= start <= _MOST_BEFORE and start == int(start)):
        raise DataError(f"{path}: the header is damaged: the voxels cannot begin at byte {start:g}")
    slope, intercept = raw.get_slope_inter()
    check_size(path, int(start) + math.prod(shape) * dtype.itemsize, _MOST_UNPACKED.get(path.suffix.lower()))
    x, y, z, channels = shape
    header = Header(
        path,
        (x, y, z),
        channels,
        lengths.affine,
        corrections=tuple(faults.told),
        open_question="; ".join(each for each in (question, lengths.question) if each) or None,
        has_no_form=question == _NO_FORM,
        conversion=lengths.conversion,
    )
    return StoredImage(header, dtype, partial(_voxels, path, int(start), shape, dtype), slope, intercept)


def _open_question(raw: Any, shape: tuple[int, ...], units: Sequence[str]) -> str | None:
    """Return what a header leaves open, or contradicts, about where its axes point."""
    if raw["qform_code"] <= 0 and raw["sform_code"] <= 0:
        return _NO_FORM
    if raw["qform_code"] <= 0 or raw["sform_code"] <= 0:
        return None
    sform, qform = (in_millimetres(each, units).affine for each in (raw.get_sform(), raw.get_qform()))
    apart = corners_apart(sform, qform, shape[:3])
    if is_close(apart, sform):
        return None
    return f"qform and sform of the header disagree by up to {apart:.2g} mm; the sform is taken"


class _Faults:
    """Collects what nibabel corrects in a header, instead of writing it to the terminal."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def log(self, level: int, message: str) -> None:
        """Take in a message."""
        if level >= _WORTH_TELLING and "SPM" not in message:
            self.told.append(message)


def _shape(path: Path, declared: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the number of voxels along the axes, and of channels."""
    shape = tuple(int(n) for n in declared)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{path}: expected three dimensions, or four with the channels last, got {tuple(declared)}")
    x, y, z, channels = (*shape, 1)[:4]
    return x, y, z, channels


def _voxels(path: Path, start: int, shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> Array:
    """Read the voxels as they are stored; of a packed file, to its end, where its checksum is."""
    with Opener(str(path)) as file:
        file.seek(start)
        num_bytes = math.prod(shape) * dtype.itemsize
        content = read_exactly(path, file, num_bytes, start, to_the_end=path.suffix.lower() != ".nii")
    return content.view(dtype).reshape(shape, order="F")
