"""Writes made-up DICOM series: the slices of a small volume, one file each."""

from __future__ import annotations

import locale
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

ARRAY = np.random.default_rng(0).integers(-100, 100, (7, 5, 6)).astype(np.int16)
SPACING = (0.7, 1.3, 2.1)
ORIGIN = (3.0, -20.0, 7.5)


def series(
    folder: Path,
    array: np.ndarray = ARRAY,
    direction: np.ndarray | None = None,
    *,
    uid: str = "1.2.3",
    positions: Sequence[float] = range(100),
    shift_mm: float = 0,
    tags: Mapping[str, str] | None = None,
    name: str = "{uid}_{number:03d}.dcm",
) -> Path:
    """Write a series whose file names and instance numbers are in another order than the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    axes = np.eye(3) if direction is None else direction
    characters = locale.setlocale(locale.LC_CTYPE)
    for z, position in zip(range(len(array)), positions, strict=False):
        image = SimpleITK.GetImageFromArray(array[z])
        image.SetSpacing(SPACING[:2])
        corner = np.array(ORIGIN) + axes[:, 2] * SPACING[2] * position + axes[:, 1] * shift_mm * z
        for tag, value in {
            "0008|0018": f"{uid}.{z + 1}",
            "0008|0060": "MR",
            "0020|000d": "1.2.9",
            "0020|000e": uid,
            "0020|0013": str(len(array) - z),
            "0020|0032": "\\".join(repr(float(each)) for each in corner),
            "0020|0037": "\\".join(repr(float(each)) for each in axes[:, :2].T.ravel()),
            "0028|0030": f"{SPACING[1]}\\{SPACING[0]}",
            **(tags or {}),
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / name.format(uid=uid, number=z * 5 % len(array))))
        writer.Execute(image)
    locale.setlocale(locale.LC_CTYPE, characters)  # writing DICOM files sets that of the process to ASCII
    return folder
