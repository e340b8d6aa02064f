"""What headers leave open or contradict is said with the cases' names, and labels without geometry can be used."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trainkit import DataError, Problem
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.preparing.cache import Cache

LPS = np.array([[-0.8, 0, 0, 30], [0, -0.8, 0, 20], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
SHAPE = (12, 10, 8)


def task(folder: Path, cases: int = 3, *, affine=LPS, label_affine=LPS, label_shape=SHAPE) -> Path:
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    for number in range(cases):
        rng = np.random.default_rng(number)
        label = np.zeros(label_shape, np.uint8)
        label[2:6, 3:7, 1:4] = 1
        save(folder / f"imagesTr/case_{number}_0000.nii.gz", rng.normal(size=SHAPE).astype(np.float32), affine)
        save(folder / f"labelsTr/case_{number}.nii.gz", label, label_affine)
    return folder


def save(path: Path, array: np.ndarray, affine, **forms) -> None:
    image = nibabel.Nifti1Image(array, affine)
    for form, matrix in forms.items():
        getattr(image, f"set_{form}")(matrix, code=1)
    nibabel.save(image, path)


def said(folder: Path, tmp_path: Path, depth: str = "all", **settings) -> list[str]:
    data = MSD(path=folder, cache=Cache(folder=tmp_path / "cache"), **settings)
    return [each.message for each in data.inspect(None, depth) if isinstance(each, Problem)]


def test_files_that_say_where_their_axes_point_are_not_doubted(tmp_path):
    assert said(task(tmp_path / "data"), tmp_path) == []


@pytest.mark.parametrize("depth", ["all", "headers"])
def test_cases_without_qform_and_sform_are_named_in_one_doubt(tmp_path, depth):
    folder = task(tmp_path / "data")
    for number in (0, 2):
        for path in (folder / f"imagesTr/case_{number}_0000.nii.gz", folder / f"labelsTr/case_{number}.nii.gz"):
            save(path, np.asanyarray(nibabel.load(path).dataobj), None)
    (doubt,) = said(folder, tmp_path, depth)
    assert doubt.startswith("case_0, case_2: image and label: the header has neither qform nor sform")


def test_qform_and_sform_that_disagree_are_doubted_with_the_distance(tmp_path):
    folder = task(tmp_path / "data")
    moved = LPS.copy()
    moved[0, 3] += 7
    path = folder / "imagesTr/case_1_0000.nii.gz"
    save(path, np.asanyarray(nibabel.load(path).dataobj), LPS, qform=moved, sform=LPS)
    (doubt,) = said(folder, tmp_path)
    assert doubt == "case_1: image: qform and sform of the header disagree by up to 7 mm; the sform is taken"


def test_rounding_of_a_turned_qform_is_no_disagreement(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    folder = task(tmp_path / "data", affine=turn @ LPS, label_affine=turn @ LPS)
    for path in folder.glob("*/*.nii.gz"):
        save(path, np.asanyarray(nibabel.load(path).dataobj), turn @ LPS, qform=turn @ LPS, sform=turn @ LPS)
    assert said(folder, tmp_path) == []


@pytest.mark.parametrize("lost", [np.eye(4), np.diag([0.8, 0.8, 2.5, 1]), None], ids=["identity", "spacing", "no form"])
def test_labels_without_geometry_are_refused_with_the_setting_that_takes_the_images(tmp_path, lost):
    folder = task(tmp_path / "data", label_affine=lost)
    with pytest.raises(DataError, match=r"set data\.labels_on_image_grid = true"):
        said(folder, tmp_path)
    assert said(folder, tmp_path, labels_on_image_grid=True) == []
    (tmp_path / "right").mkdir()
    right = MSD(path=task(tmp_path / "right/data"), cache=Cache(folder=tmp_path / "cache")).cases()
    taken = MSD(path=folder, cache=Cache(folder=tmp_path / "cache"), labels_on_image_grid=True).cases()
    for one, other in zip(right.cases, taken.cases, strict=True):
        expected, found = one.read(right.labels), other.read(taken.labels)
        assert np.array_equal(expected.label_codes_XYZ, found.label_codes_XYZ)
        assert np.array_equal(expected.affine, found.affine)


def test_a_label_with_a_geometry_of_its_own_gets_no_such_advice(tmp_path):
    elsewhere = LPS.copy()
    elsewhere[2, 3] += 50
    with pytest.raises(DataError, match="on another grid") as caught:
        said(task(tmp_path / "data", label_affine=elsewhere), tmp_path)
    assert "labels_on_image_grid" not in str(caught.value)


def test_a_label_of_another_shape_is_refused_whatever_is_set(tmp_path):
    folder = task(tmp_path / "data", label_affine=np.eye(4), label_shape=(12, 10, 9))
    with pytest.raises(DataError, match="12×10×8 and 12×10×9 voxels"):
        said(folder, tmp_path, labels_on_image_grid=True)
