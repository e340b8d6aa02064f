"""DICOM series are read as SimpleITK reads them; what is missing, irregular or ambiguous is refused or said."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from clients.dicom_series import ARRAY, SPACING, series
from clients.orientations import directions

from trainkit import DataError
from trainkit_segmentation.files.images import files_of, read_header, read_voxels
from trainkit_segmentation.files.readers import dicom

from .nifti_fuzz import read_or_refused


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_header(path)
    return str(caught.value)


@pytest.mark.slow
def test_the_geometry_of_all_orientations_and_of_oblique_ones_is_that_of_itk(tmp_path):
    for number, direction in enumerate(directions()):
        folder = series(tmp_path / str(number), direction=direction)
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        expected = np.eye(4)
        expected[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
        expected[:3, 3] = image.GetOrigin()
        header, voxels_CXYZ = read_voxels(folder)
        assert np.allclose(header.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ expected, atol=1e-6)
        assert np.array_equal(voxels_CXYZ[0].T, SimpleITK.GetArrayFromImage(image))
        assert header.open_question is None


def test_slices_are_in_the_order_of_their_positions_and_intensities_are_rescaled(tmp_path):
    even = ARRAY // 2 * 2
    folder = series(tmp_path / "scan", even, tags={"0008|0060": "CT", "0028|1052": "-1024", "0028|1053": "2"})
    header, voxels_CXYZ = read_voxels(folder)
    assert np.array_equal(voxels_CXYZ[0].T, even)
    assert header.spacing_mm == pytest.approx(SPACING)
    assert sorted(files_of(folder)) == sorted(folder.iterdir())
    assert [each.name[6:9] for each in files_of(folder)] == [f"{z * 5 % 7:03d}" for z in range(7)]


def test_of_several_series_in_a_folder_a_file_says_which_is_meant(tmp_path):
    folder = series(tmp_path / "scan", tags={"0008|103e": "T1"})
    series(folder, ARRAY + 1, uid="1.2.4", tags={"0008|103e": "T2 flair"})
    told = refusal(folder)
    assert "the folder holds 2 DICOM series; name a file of the one that is meant" in told
    assert "T2 flair (MR, 7 files, for example 1.2.4_000.dcm)" in told
    assert np.array_equal(read_voxels(folder / "1.2.4_003.dcm")[1][0].T, ARRAY + 1)


def test_files_without_an_ending_and_beside_others_are_found(tmp_path):
    folder = series(tmp_path / "scan", name="IM{number:04d}")
    (folder / "README.txt").write_text("from the archive")
    for path in (folder, folder / "IM0002"):
        assert np.array_equal(read_voxels(path)[1][0].T, ARRAY)


def test_missing_slices_and_two_slices_in_one_place_are_refused_with_where_they_are(tmp_path):
    assert "they are 2.1 mm apart, but 4.2 mm between number 3 and 4 of 7" in refusal(
        series(tmp_path / "missing", positions=[0, 1, 2, 4, 5, 6, 7])
    )
    assert "at a place where there is another" in refusal(series(tmp_path / "twice", positions=[0, 1, 1, 2, 3, 4, 5]))
    far = series(tmp_path / "far", positions=[0, 1.3, 2.6, 3.9, 5.0, 5.6, 6])
    assert "voxels off a regular grid; resample it" in refusal(far)


def test_slices_that_are_a_little_irregular_or_shifted_are_read_and_doubted(tmp_path):
    uneven = read_header(series(tmp_path / "uneven", positions=[0, 1, 2.2, 3.2, 4, 5, 6]))
    assert uneven.open_question == "the slices are up to 0.2 voxels off a regular grid"
    tilted = read_header(series(tmp_path / "tilted", shift_mm=0.5))
    assert "shifted by 0.5 mm against the one before (gantry tilt of 13.4°)" in (tilted.open_question or "")
    assert np.allclose(tilted.affine[:3, 2], (0, -0.5, 2.1))


def test_slices_of_several_sizes_and_a_damaged_one_are_refused(tmp_path):
    folder = series(tmp_path / "sizes", ARRAY[:3])
    series(folder, ARRAY[:3, :4], name="other_{number}.dcm", positions=[3, 4, 5])
    assert "the slices of the series have 2 sizes" in refusal(folder)
    cut_off = sorted(series(tmp_path / "cut").iterdir())[2]
    cut_off.write_bytes(cut_off.read_bytes()[:-20])
    assert "1.2.3_002.dcm: the file is truncated or damaged: its element 7fe0,0010 needs 60 bytes, 40 are left" in (
        refusal(tmp_path / "cut")
    )


def test_without_simpleitk_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    folder = series(tmp_path / "scan", ARRAY[:1])
    monkeypatch.setattr(dicom, "find_spec", lambda name: None)
    assert refusal(folder) == (
        f"{folder}: DICOM is read by SimpleITK, which is not installed: pip install 'trainkit[itk]'"
    )


def test_damaged_slices_are_read_or_refused_at_once(tmp_path):
    folder = series(tmp_path / "scan", ARRAY[:2])
    path = min(folder.iterdir())
    whole = path.read_bytes()
    rng = random.Random(1)
    warnings.simplefilter("error")
    outcomes = []
    for n in range(200):
        wrong = bytearray(whole)
        for _ in range(rng.choice((1, 2, 4))):
            at, width = rng.randrange(128, len(wrong) - 4), rng.choice((1, 2, 4))
            wrong[at : at + width] = bytes([rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))]) * width
        path.write_bytes(wrong)
        outcomes.append(read_or_refused(path, rng, f"file {n}"))
    assert min(map(outcomes.count, ("read", "refused"))) > 20
