"""Writes NIfTI files on the voxel grid of another file, with its header's geometry, codes and units as they are."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import Opener

from trainkit_segmentation.files.header import Array, Header

_FAST = 1  # level of compression: higher ones are many times slower, and hardly smaller
_SUFFIXES = (".nii", ".nii.gz", ".nii.bz2", ".nii.zst")


def write_nifti(
    path: Path,
    volumes_XYZ: Iterable[Array],
    like: Header,
    dtype: np.dtype[Any],
    *,
    num_volumes: int | None = None,
    slope: float = 1.0,
) -> None:
    """Write volumes on the grid of another file.

    Args:
        path: The file to write; it is packed if it ends in ``.gz``.
        volumes_XYZ: The volumes, one after the other, so that not all of them have to be in memory.
        like: Header of the file whose grid it is. Of a NIfTI file, its affines, their codes, and its units are kept to
            the bit.
        dtype: The type in which voxels are stored.
        num_volumes: Length of the fourth axis; None: there is none.
        slope: What readers multiply the stored values by.
    """
    header = _header_like(like)
    header.set_data_shape(like.shape if num_volumes is None else (*like.shape, num_volumes))
    header.set_data_dtype(dtype)
    header.set_slope_inter(slope, 0.0)
    header.set_intent("none")
    header["descrip"] = b"trainkit"
    for each in ("cal_min", "cal_max"):
        header[each] = 0
    start = header.sizeof_hdr + 4
    header["vox_offset"] = start
    stored = dtype.newbyteorder(header.endianness)
    with Opener(str(path), "wb", compresslevel=_FAST) as file:
        file.write(header.binaryblock + bytes(4))
        for volume_XYZ in volumes_XYZ:
            for plane_XY in np.moveaxis(volume_XYZ, 2, 0):  # x runs fastest
                file.write(plane_XY.astype(stored, copy=False).tobytes(order="F"))


def _header_like(like: Header) -> Any:
    """Return the header of a NIfTI file, or one with the same affine if the file is of another format."""
    if like.path.name.lower().endswith(_SUFFIXES):
        try:
            with Opener(str(like.path)) as file:
                block = file.read(Nifti2Header.sizeof_hdr)
        except (OSError, EOFError, zlib.error):  # it was read a moment ago
            block = b""
        kinds: tuple[Any, ...] = (Nifti1Header, Nifti2Header)
        for kind in kinds:
            if len(block) >= kind.sizeof_hdr:
                numbers = {int.from_bytes(block[:4], order) for order in ("little", "big")}
                if kind.sizeof_hdr in numbers:
                    header = kind(block[: kind.sizeof_hdr], check=False)
                    header.check_fix(logger=_Silent(), error_level=100)
                    return header
    kind = cast(Any, Nifti1Header)
    header = kind()
    header.set_data_shape(like.shape)
    header.set_sform(like.affine, code="scanner")
    header.set_qform(like.affine, code="scanner", strip_shears=True)
    header.set_xyzt_units("mm")
    return header


class _Silent:
    """Takes what nibabel says of a header; the reader has said it."""

    def log(self, level: int, message: str) -> None:
        """Do nothing."""
