"""Headers and voxels of DICOM series, by SimpleITK.

The order of the slices and the geometry are taken from the position and the orientation of each slice, in mm (left,
posterior, superior).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as itk  # noqa: N813

from trainkit import DataError, some_of
from trainkit_segmentation.files.header import Array, Header, check_affine, ras_from_lps
from trainkit_segmentation.files.readers.dicom_elements import modality_of
from trainkit_segmentation.files.stored import StoredImage

itk.ProcessObject.SetGlobalWarningDisplay(False)  # what is wrong with a series is said here

_SERIES, _DESCRIPTION, _MODALITY = "0020|000e", "0008|103e", "0008|0060"
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_PIXEL_SPACING, _IMAGER_SPACING = "0028|0030", "0018|1164"
_BETWEEN_SLICES, _THICKNESS = "0018|0088", "0018|0050"
_NO_IMAGES = {
    "SEG": "a segmentation object",
    "RTSTRUCT": "a set of contours",
    "SR": "a report",
    "PR": "a presentation state",
    "KO": "a selection of other objects",
    "REG": "a registration",
    "RTPLAN": "a plan",
}
_CLOSE = 0.1  # of a voxel: slices may be off a regular grid by this much
_DOUBTED = 0.5  # of a voxel: beyond this, a series is refused
_NO_FORM = "the slices have neither position nor orientation, so where the axes point is a guess"


class _Slice(NamedTuple):
    """The header of a file.

    Attributes:
        path: The file.
        tags: Tag -> its text.
        size: Voxels along x, y, and z or the frames of the file.
        pixel_type: SimpleITK's number of the type of its voxels, after rescaling.
        channels: Numbers of each voxel.
        affine: (4, 4) by SimpleITK, to mm (left, posterior, superior); right for a file that holds a whole volume.
    """

    path: Path
    tags: Mapping[str, str]
    size: tuple[int, int, int]
    pixel_type: int
    channels: int
    affine: Array

    def numbers(self, *tags: str) -> list[float]:
        """Return the numbers of the first tag that is there; none, if there is none."""
        for tag in tags:
            if text := self.tags.get(tag, "").strip():
                return [float(each) for each in text.split("\\")]
        return []


def open_series(path: Path) -> StoredImage:
    """Read the headers of a series.

    Args:
        path: The folder of the series, or one of its files.

    Raises:
        DataError: There is no series, or there are several; or slices are missing, irregular or of several sizes.
    """
    slices = _series(path)
    first = slices[0]
    affine, odd = _geometry(path, slices)
    affine = ras_from_lps(affine)
    check_affine(path, affine)
    x, y, z = first.size
    types = {each.pixel_type for each in slices}
    pixel_type = first.pixel_type if len(types) == 1 else itk.sitkFloat64
    dtype = itk.GetArrayFromImage(itk.Image([1, 1], pixel_type, first.channels)).dtype
    header = Header(
        path,
        (x, y, z * len(slices)),
        first.channels,
        affine,
        open_question="; ".join(odd) or None,
        has_no_form=_NO_FORM in odd,
    )
    return StoredImage(header, dtype, partial(_voxels, [each.path for each in slices], pixel_type, header))


def files_of_series(path: Path) -> tuple[Path, ...]:
    """Return the files of a series, slice by slice.

    Raises:
        DataError: As `open_series`.
    """
    return tuple(each.path for each in _series(path))


def _voxels(files: Sequence[Path], pixel_type: int, header: Header) -> Array:
    if len(files) == 1:
        image = itk.ReadImage(str(files[0]), imageIO="GDCMImageIO")
    else:
        reader = itk.ImageSeriesReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileNames([str(file) for file in files])
        reader.SetOutputPixelType(pixel_type)
        image = reader.Execute()
    array = itk.GetArrayFromImage(image)
    array = array.reshape((*header.shape[::-1], header.channels))
    return np.ascontiguousarray(array.transpose(2, 1, 0, 3))


def _series(path: Path) -> list[_Slice]:
    """Return the slices of a series in the order of their positions."""
    folder = path if path.is_dir() else path.parent
    others: list[str] = []
    of: dict[str, list[_Slice]] = {}
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file.name.upper() == "DICOMDIR":
            continue
        modality = modality_of(file)
        if modality in _NO_IMAGES:
            others.append(f"{file.name} is {_NO_IMAGES[modality]}")
        elif (each := _header(file)) is not None:
            of.setdefault(each.tags.get(_SERIES, "").strip(), []).append(each)
        elif modality or file.suffix.lower() == ".dcm":
            raise DataError(f"{path}: {file.name} cannot be read as DICOM: the file is damaged, or is no image")
    if path != folder:
        meant = [slices for slices in of.values() if any(each.path == path for each in slices)]
        if not meant:
            why = next((told for told in others if told.startswith(f"{path.name} is ")), "it cannot be read")
            raise DataError(f"{path}: this is no DICOM image: {why}")
        slices = meant[0]
    elif len(of) == 1:
        (slices,) = of.values()
    elif not of:
        raise DataError(f"{path}: the folder holds no DICOM images" + (f": {some_of(others)}" if others else ""))
    else:
        named = "; ".join(_in_words(slices) for slices in sorted(of.values(), key=lambda each: each[0].path)[:5])
        raise DataError(
            f"{path}: the folder holds {len(of)} DICOM series; name a file of the one that is meant instead of the "
            f"folder: {named}"
        )
    return _in_order(path, slices)


def _header(file: Path) -> _Slice | None:
    """Return the header of a file; None, if it is no DICOM image."""
    reader = itk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    num = reader.GetDimension()
    x, y, z = (*reader.GetSize(), 1, 1)[:3]
    affine = np.eye(4)
    affine[:num, :num] = np.reshape(reader.GetDirection(), (num, num)) * np.array(reader.GetSpacing())
    affine[:num, 3] = reader.GetOrigin()
    tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    return _Slice(file, tags, (x, y, z), reader.GetPixelIDValue(), reader.GetNumberOfComponents(), affine)


def _in_words(slices: Sequence[_Slice]) -> str:
    first = slices[0]
    described = first.tags.get(_DESCRIPTION, "").strip() or "without a description"
    modality = first.tags.get(_MODALITY, "").strip()
    return f"{described} ({modality}, {len(slices)} file{'s' * (len(slices) != 1)}, for example {first.path.name})"


def _in_order(path: Path, slices: Sequence[_Slice]) -> list[_Slice]:
    """Return slices in the order of their positions along the normal of the first."""
    if len(slices) == 1:
        return list(slices)
    for what, values in (
        ("sizes", {each.size[:2] for each in slices}),
        ("numbers of channels", {each.channels for each in slices}),
        ("orientations", {tuple(np.round(each.numbers(_ORIENTATION), 3)) for each in slices}),
        ("pixel spacings", {tuple(np.round(each.numbers(_PIXEL_SPACING, _IMAGER_SPACING), 4)) for each in slices}),
    ):
        if len(values) > 1:
            raise DataError(
                f"{path}: the slices of the series have {len(values)} {what}; keep those of one in a folder"
            )
    if any(each.size[2] > 1 for each in slices):
        raise DataError(f"{path}: the series has {len(slices)} files of several slices each; name one of them")
    if any(len(each.numbers(_POSITION)) != 3 or len(each.numbers(_ORIENTATION)) != 6 for each in slices):
        raise DataError(f"{path}: the slices of the series do not say where they are (position and orientation)")
    normal = _normal(slices[0])
    return sorted(slices, key=lambda each: float(np.dot(each.numbers(_POSITION), normal)))


def _normal(one: _Slice) -> Array:
    orientation = one.numbers(_ORIENTATION)
    normal: Array = np.cross(orientation[:3], orientation[3:])
    return normal


def _geometry(path: Path, slices: Sequence[_Slice]) -> tuple[Array, tuple[str, ...]]:
    """Return the affine to (left, posterior, superior), and what is odd about it."""
    first = slices[0]
    affine = np.eye(4)
    if first.size[2] > 1:
        return first.affine, ()
    spacing = first.numbers(_PIXEL_SPACING, _IMAGER_SPACING)  # between rows, then between columns
    missing = () if len(spacing) == 2 else ("the size of a pixel is not there, and 1 mm is taken",)
    down, across = spacing if len(spacing) == 2 else (1.0, 1.0)
    thickness = (first.numbers(_BETWEEN_SLICES, _THICKNESS) or [1.0])[0]
    position, orientation = first.numbers(_POSITION), first.numbers(_ORIENTATION)
    if len(position) != 3 or len(orientation) != 6:
        affine[:3, :3] = np.diag([across, down, abs(thickness) or 1.0])
        return affine, (*missing, _NO_FORM)
    affine[:3, 0], affine[:3, 1] = np.multiply(orientation[:3], across), np.multiply(orientation[3:], down)
    affine[:3, 3] = position
    normal = _normal(first)
    if len(slices) == 1:
        affine[:3, 2] = normal * (abs(thickness) or 1.0)
        return affine, missing
    places = np.array([each.numbers(_POSITION) for each in slices])
    _check_steps(path, places @ normal)
    affine[:3, 2] = (places[-1] - places[0]) / (len(slices) - 1)
    off_mm = places - (places[0] + np.arange(len(slices))[:, None] * affine[:3, 2])
    off = float(np.abs(np.linalg.lstsq(affine[:3, :3], off_mm.T, rcond=None)[0]).max())  # in voxels
    if off > _DOUBTED:
        raise DataError(f"{path}: the slices of the series are up to {off:.2g} voxels off a regular grid; resample it")
    odd = [f"the slices are up to {off:.2g} voxels off a regular grid"] if off > _CLOSE else []
    shift = affine[:3, 2] - np.dot(affine[:3, 2], normal) * normal
    if np.linalg.norm(shift) * (len(slices) - 1) > _CLOSE * min(across, down):
        step = float(np.dot(affine[:3, 2], normal))
        tilt = float(np.degrees(np.arctan2(np.linalg.norm(shift), step)))
        odd.append(
            f"each slice is shifted by {np.linalg.norm(shift):.3g} mm against the one before (gantry tilt of "
            f"{tilt:.3g}°), so the axes are not perpendicular"
        )
    return affine, (*missing, *odd)


def _check_steps(path: Path, places_mm: Array) -> None:
    """Check that no two slices are in one place, and none is missing."""
    steps = np.diff(places_mm)
    usual = float(np.median(steps))
    if (same := int((steps < 0.01 * usual).sum()) if usual > 0 else len(steps)) > 0:
        raise DataError(
            f"{path}: {same + 1} slices of the series are at a place where there is another (several echoes, times or "
            "b-values?); keep those of one in a folder"
        )
    if (gaps := np.flatnonzero(steps > 1.5 * usual)).size:
        k = int(gaps[0])
        raise DataError(
            f"{path}: slices of the series are missing: they are {usual:.4g} mm apart, but {steps[k]:.4g} mm between "
            f"number {k + 1} and {k + 2} of {len(places_mm)}"
        )
