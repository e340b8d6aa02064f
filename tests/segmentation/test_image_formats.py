"""Every format is read as SimpleITK reads it: voxels, channels, and where they are, in all orientations."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from clients.orientations import directions

from trainkit import DataError, registry
from trainkit_segmentation.files import images
from trainkit_segmentation.files.header import with_spacing
from trainkit_segmentation.files.images import files_of, read_header, read_integers, read_voxels
from trainkit_segmentation.files.readers.kind import Reader

from .text_header_fuzz import fuzz

ENDINGS = (".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def written(path: Path, array: np.ndarray, direction: np.ndarray | None = None, **how: bool) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=how.get("channels", False))
    image.SetSpacing((0.7, 1.3, 2.1))
    image.SetOrigin((3.0, -20.0, 7.5))
    if direction is not None:
        image.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(path), how.get("packed", False))
    return path


def affine_by_itk(path: Path) -> np.ndarray:
    """Return the affine to (right, anterior, superior) from what SimpleITK reads, which is (left, posterior, …)."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_geometry_of_all_48_orientations_and_of_oblique_ones_is_that_of_itk(tmp_path, ending):
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    for direction in directions():
        path = written(tmp_path / f"image{ending}", array, direction)
        header, voxels_CXYZ = read_voxels(path)
        assert np.array_equal(voxels_CXYZ[0].T, array)
        assert np.allclose(header.affine, affine_by_itk(path), atol=1e-5)
        assert header.open_question is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_voxels_of_every_type_and_several_channels_are_those_that_itk_wrote(tmp_path, ending, packed):
    rng = np.random.default_rng(0)
    for dtype, channels in itertools.product(TYPES, (1, 3)):
        array = rng.integers(0, 120, (4, 5, 6, channels)).astype(dtype)
        path = written(tmp_path / f"image{ending}", array.squeeze(), channels=channels > 1, packed=packed)
        header, voxels_CXYZ = read_voxels(path)
        assert (header.shape, header.channels) == ((6, 5, 4), channels)
        assert np.array_equal(np.moveaxis(voxels_CXYZ, 0, -1).transpose(2, 1, 0, 3), array)
        assert np.array_equal(read_integers(path).values_CXYZ, voxels_CXYZ)


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_fourth_axis_holds_the_channels_and_a_plane_is_a_volume_of_one_slice(tmp_path, ending):
    array = np.arange(360, dtype=np.int16).reshape(3, 4, 5, 6)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=False), str(tmp_path / f"four{ending}"))
    assert np.array_equal(read_voxels(tmp_path / f"four{ending}")[1], array.transpose(0, 3, 2, 1))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array[0, 0]), str(tmp_path / f"two{ending}"))
    assert np.array_equal(read_voxels(tmp_path / f"two{ending}")[1][0, :, :, 0], array[0, 0].T)


def test_every_file_of_voxels_that_a_header_names_belongs_to_the_image(tmp_path):
    array = np.arange(120, dtype="<i2").reshape(4, 5, 6)
    for z in range(4):
        array[z].tofile(tmp_path / f"slice_{z}.raw")
    mhd = "NDims = 3\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = "
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nendian: little\ndata file: "
    names = "\n".join(f"slice_{z}.raw" for z in range(4))
    for name, text in (
        ("a.mhd", f"{mhd}slice_%d.raw 0 3 1\n"),
        ("b.mhd", f"{mhd}LIST\n{names}\n"),
        ("c.nhdr", f"{nrrd}slice_%d.raw 0 3 1\n\n"),
        ("d.nhdr", f"{nrrd}LIST\n{names}\n\n"),
    ):
        (tmp_path / name).write_text(text)
        assert np.array_equal(read_voxels(tmp_path / name)[1][0].T, array)
        assert files_of(tmp_path / name) == (tmp_path / name, *(tmp_path / f"slice_{z}.raw" for z in range(4)))
    (tmp_path / "slice_2.raw").unlink()
    with pytest.raises(DataError, match=r"a\.mhd: the header names the file slice_2\.raw, which is not there"):
        read_header(tmp_path / "a.mhd")


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("left-posterior-superior", (-1, -1, 1))],
)
def test_the_space_of_an_nrrd_says_where_its_axes_point(tmp_path, space, signs):
    head = f"NRRD0004\ntype: uchar\ndimension: 3\nspace: {space}\nsizes: 2 2 2\nencoding: raw\n"
    path = tmp_path / "image.nrrd"
    path.write_bytes(f"{head}space directions: (1,2,0) (-2,1,0) (0,0,3)\nspace origin: (5,6,7)\n\n".encode() + bytes(8))
    assert np.allclose(read_header(path).affine, affine_by_itk(path))
    assert np.array_equal(read_header(path).affine[:3, 3], np.array(signs) * (5, 6, 7))


def test_an_nrrd_that_names_no_space_that_says_where_axes_point_is_doubted(tmp_path):
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspacings: 1 2 3\n"
    for space, told in (("", "does not name a space"), ("space: scanner-xyz\n", '"scanner-xyz", which does not say')):
        (tmp_path / "image.nrrd").write_bytes(f"{head}{space}\n".encode() + bytes(8))
        header = read_header(tmp_path / "image.nrrd")
        assert told in (header.open_question or "")
        assert header.spacing_mm == (1, 2, 3)


def test_the_names_of_the_segments_of_slicer_are_read(tmp_path):
    head = "NRRD0004\ntype: uchar\ndimension: 3\nspace: LPS\nsizes: 2 2 2\nencoding: raw\n"
    head += "Segment0_Name:=tumor\nSegment0_LabelValue:=2\nSegment0_Layer:=0\nSegment1_Name:=edema\n"
    (tmp_path / "a.seg.nrrd").write_bytes(f"{head}Segment1_LabelValue:=1\n\n".encode() + bytes(8))
    assert read_header(tmp_path / "a.seg.nrrd").names == {1: "edema", 2: "tumor"}


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_more_voxels_than_there_can_be_and_more_than_memory_are_refused_before_they_are_read(
    tmp_path, ending, monkeypatch
):
    for packed in (False, True):
        path = written(tmp_path / f"image{ending}", np.zeros((4, 5, 6), np.uint8), packed=packed)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"6 5 4", b"6000 5000 400", 1))
        with pytest.raises(DataError, match="truncated, or its header damaged: it needs 12000000"):
            read_header(path)
        path.write_bytes(whole)
        with monkeypatch.context() as patch:
            patch.setattr(images, "free_host_memory", lambda: 500)
            with pytest.raises(DataError, match=r"of memory, and 0\.488 KiB are free"):
                read_voxels(path)


def test_a_packed_file_that_holds_more_than_its_header_says_is_refused(tmp_path):
    path = written(tmp_path / "image.nrrd", np.zeros((100, 200, 100), np.uint8), packed=True)
    path.write_bytes(path.read_bytes().replace(b"100 200 100", b"100 200 1", 1))
    with pytest.raises(DataError, match="more is packed in it than its header declares"):
        read_voxels(path)


def test_hundreds_of_damaged_text_headers_are_read_or_refused(tmp_path):
    outcome = fuzz(600, seed=1, folder=tmp_path)
    assert min(outcome["refused"], outcome["read"]) > 100


def test_a_file_of_another_format_is_told_what_can_be_read(tmp_path):
    (tmp_path / "image.mgz").write_bytes(b"")
    with pytest.raises(DataError, match=r"no reader knows this format; .* end in \.bmp, .*\.nii, .*\.nrrd"):
        read_header(tmp_path / "image.mgz")


def test_a_reader_of_a_third_party_reads_its_files_and_a_broken_one_takes_no_other_down(tmp_path, monkeypatch):
    ours = registry.registered(Reader.entry_points)
    theirs = registry.RegisteredComponent("bytes", "clients.bytes_reader:Bytes", "their_package", "2.1")
    broken = registry.RegisteredComponent("broken", "no_such_module:Reader", "broken_package", "1")
    monkeypatch.setattr(images, "registered", lambda group: (*ours, theirs, broken))
    (tmp_path / "image.bytes").write_bytes(b"123")
    header, voxels_CXYZ = read_voxels(tmp_path / "image.bytes")
    assert (header.shape, voxels_CXYZ.tolist()) == ((3, 1, 1), [[[[49]], [[50]], [[51]]]])
    assert images.readers_of_others([tmp_path / "image.bytes"]) == ["their_package 2.1"]
    assert images.readers_of_others([tmp_path / "image.nii"]) == []
    with pytest.raises(DataError, match=r"no reader knows this format.*broken_package 1"):
        read_header(Path(__file__))


def test_an_nrrd_or_metaimage_without_a_spacing_takes_that_of_the_recipe(tmp_path):
    nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: LPS\n\n"
    (tmp_path / "a.nrrd").write_bytes(nrrd.encode() + bytes(8))
    mha = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(mha.encode() + bytes(8))
    for name in ("a.nrrd", "a.mha"):
        header = read_header(tmp_path / name)
        assert header.has_no_spacing
        assert with_spacing(header, (2.0, 3.0, 4.0)).spacing_mm == (2, 3, 4)


def test_a_spacing_that_an_nrrd_leaves_open_along_one_axis_is_doubted_and_its_origin_is_kept(tmp_path):
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: LPS\nspacings: 2 3 nan\n"
    (tmp_path / "a.nrrd").write_bytes(f"{head}space origin: (5,6,7)\n\n".encode() + bytes(8))
    header = read_header(tmp_path / "a.nrrd")
    assert header.affine[:3, 3].tolist() == [-5, -6, 7]
    assert header.spacing_mm == (2, 3, 1)
    assert "no spacing for the axis 3, and 1 mm is taken" in (header.open_question or "")
    assert not header.has_no_spacing


def test_a_scaling_that_itk_does_not_apply_is_doubted(tmp_path):
    head = "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
    for slope, told in ((1, False), (2, True)):
        text = f"{head}ElementToIntensityFunctionSlope = {slope}\nElementDataFile = LOCAL\n"
        (tmp_path / "a.mha").write_bytes(text.encode() + bytes(range(8)))
        header, voxels_CXYZ = read_voxels(tmp_path / "a.mha")
        by_itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.mha")))
        assert np.array_equal(voxels_CXYZ[0].T, by_itk)
        assert ("not applied" in (header.open_question or "")) == told
