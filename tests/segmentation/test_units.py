"""Lengths that a header gives in another unit are converted to mm, and this is said."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from clients import segmentation_cases as made_up
from inspected import inspected

from trainkit import DataError
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.files.images import read_header
from trainkit_segmentation.files.units import in_millimetres
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.same_cases import SameCases

AFFINE = np.array([[0.0, 3, 0, -10], [2, 0, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])


def nifti(path: Path, units: int, affine: np.ndarray = AFFINE) -> Path:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), affine)
    image.set_qform(affine, code=1)
    image.header["xyzt_units"] = units
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("units", "mm"), [(0, 1.0), (2, 1.0), (3, 1e-3), (3 + 8, 1e-3), (1, 1e3), (7, 1.0)])
def test_a_nifti_file_in_metres_or_micrometres_is_read_in_mm(tmp_path, units, mm):
    affine = AFFINE if mm < 1e3 else AFFINE * [[1e-2], [1e-2], [1e-2], [1]]  # no voxels of metres
    header = read_header(nifti(tmp_path / "image.nii", units, affine))
    assert np.allclose(header.affine, affine * [[mm], [mm], [mm], [1]])
    assert (header.conversion is not None) == (mm != 1.0)
    assert header.open_question is None
    if units != 7:  # which is no unit, and ITK refuses
        by_itk = SimpleITK.ReadImage(str(tmp_path / "image.nii")).GetSpacing()
        assert np.allclose(header.spacing_mm, by_itk)


def test_voxels_of_metres_are_doubted(tmp_path):
    assert "a voxel is 4000 mm large" in (read_header(nifti(tmp_path / "image.nii", 1)).open_question or "")


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("mm", 1.0), ("", 1.0), ("um", 1e-3), ("\u00b5m", 1e-3), ("microns", 1e-3), ("cm", 10.0), ("ell", 1.0)],
)
def test_the_units_of_nrrd_and_metaimage_are_converted_or_doubted(tmp_path, unit, mm):
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: RAS\n"
    quoted = " ".join([f'"{unit}"'] * 3)
    paths = [tmp_path / name for name in ("a.nrrd", "b.nrrd", "c.mha")]
    directions = f"space units: {quoted}\nspace directions: (0,2,0) (3,0,0) (0,0,4)\nspace origin: (-10,20,30)\n"
    paths[0].write_bytes(f"{head}{directions}\n".encode() + bytes(8))
    paths[1].write_bytes(f"{head}units: {quoted}\nspacings: 2 3 4\n\n".encode() + bytes(8))
    lines = f"NDims = 3\nDimSize = 2 2 2\nElementSpacing = 2 3 4\nDistanceUnits = {unit}\nElementType = MET_UCHAR\n"
    paths[2].write_bytes(f"{lines}ElementDataFile = LOCAL\n".encode() + bytes(8))
    headers = [read_header(path) for path in paths]
    assert np.allclose(headers[0].affine, AFFINE * [[mm], [mm], [mm], [1]])
    for header in headers:
        assert np.allclose(header.spacing_mm, np.multiply((2, 3, 4), mm))
        assert (header.conversion is not None) == (mm != 1.0)
        assert ('"ell", which are taken as mm' in (header.open_question or "")) == (unit == "ell")


def test_each_coordinate_may_have_a_unit_of_its_own():
    assert np.allclose(in_millimetres(AFFINE, ("mm", "um", "cm")).affine, AFFINE * [[1], [1e-3], [10], [1]])


def test_check_data_says_once_which_cases_were_converted_and_a_label_in_other_units_is_refused(tmp_path):
    folder = made_up.msd(tmp_path / "msd", cases=3)
    files = sorted(folder.rglob("*.nii.gz"))
    for path in files:
        image = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        image.header.set_xyzt_units("micron")
        nibabel.save(image, path)
    data = MSD(path=folder, split=SameCases(), cache=Cache(folder=tmp_path / "cache"))
    said = [line for line in inspected(data) if "converted to mm" in line]
    assert len(said) == 1
    assert not said[0].startswith("warning")
    nifti_label = next(path for path in files if path.parent.name == "labelsTr")
    image = nibabel.load(nifti_label)
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, nifti_label)
    with pytest.raises(DataError, match="on another grid"):
        inspected(data, "headers")
