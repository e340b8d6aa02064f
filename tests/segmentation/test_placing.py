"""Labels with other axes than their images, and segments of 3D Slicer, are put onto the voxels of the image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from trainkit import DataError
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.cases.labels import one_value_each
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.preparing.cache import Cache

SHAPE = (6, 5, 4)
AFFINE = np.array([[-0.8, 0, 0, 30], [0, -0.9, 0, 20], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
LABELS = one_value_each({"rim": 1, "core": 2})
VALUES = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def case(folder: Path, label: Path) -> FileCase:
    nibabel.save(nibabel.Nifti1Image(np.arange(120.0).reshape(SHAPE), AFFINE), folder / "image.nii")
    return FileCase("a", "a", (folder / "image.nii",), label)


def segments(path: Path, values: np.ndarray, start: tuple[int, int, int], names: Mapping[int, str]) -> Path:
    """Write a segmentation as 3D Slicer does: of the part of the image that has segments, in (left, posterior, …)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    origin = lps @ (*start, 1)
    head = [
        *("NRRD0004", "type: unsigned char", f"dimension: {values.ndim}", "space: left-posterior-superior"),
        f"sizes: {' '.join(map(str, values.shape))}",
        "space directions: " + "none " * (values.ndim - 3) + " ".join(f"({x},{y},{z})" for x, y, z in lps[:3, :3].T),
        *("kinds: " + "list " * (values.ndim - 3) + "domain domain domain", "endian: little", "encoding: raw"),
        f"space origin: ({origin[0]},{origin[1]},{origin[2]})",
    ]
    for number, (value, name) in enumerate(names.items()):
        head += [f"Segment{number}_Name:={name}", f"Segment{number}_LabelValue:={value}"]
    path.write_bytes("\n".join([*head, "", ""]).encode() + values.tobytes(order="F"))
    return path


def test_a_label_with_the_axes_in_any_other_order_is_turned_onto_its_image(tmp_path):
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            orientation = np.array([*zip(order, signs, strict=True)])
            turned = nibabel.Nifti1Image(VALUES, AFFINE).as_reoriented(orientation)
            nibabel.save(turned, tmp_path / "label.nii")
            one = case(tmp_path, tmp_path / "label.nii")
            assert one.inspect().problems == ()
            found = one.read(LABELS)
            assert np.array_equal(found.label_codes_XYZ, VALUES)
            assert np.array_equal(found.affine, AFFINE.astype(np.float32))


def test_channels_with_other_axes_are_turned_onto_the_first(tmp_path):
    image = nibabel.Nifti1Image(np.arange(120.0).reshape(SHAPE) + 7, AFFINE)
    nibabel.save(nibabel.as_closest_canonical(image), tmp_path / "other.nii")
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), tmp_path / "label.nii")
    one = case(tmp_path, tmp_path / "label.nii")
    both = FileCase("a", "a", (*one.images, tmp_path / "other.nii"), one.label, channels=2)
    assert np.array_equal(both.read(LABELS).image_CXYZ[1], np.arange(120.0).reshape(SHAPE) + 7)


@pytest.mark.parametrize("moved", [(0.3, 0, 0), (0, 0, 2.5)])
def test_a_grid_between_the_voxels_or_beyond_the_image_is_refused(tmp_path, moved):
    affine = AFFINE.copy()
    affine[:3, 3] += moved
    nibabel.save(nibabel.Nifti1Image(VALUES, affine), tmp_path / "label.nii")
    with pytest.raises(DataError, match="the label is on another grid"):
        case(tmp_path, tmp_path / "label.nii").read(LABELS)


def test_segments_are_read_by_their_names_on_the_part_of_the_image_that_they_cover(tmp_path):
    part = VALUES[1:5, 2:5, 1:4]
    swapped = np.array([0, 5, 1], np.uint8)[part]  # in this file, the core is 1 and the rim 5
    path = segments(tmp_path / "a.seg.nrrd", swapped, (1, 2, 1), {5: "Rim", 1: "core"})
    one = case(tmp_path, path)
    assert one.inspect().problems == ()
    found = one.read(LABELS).label_codes_XYZ
    assert np.array_equal(found[1:5, 2:5, 1:4], part)
    assert found.sum() == part.sum()


def test_segments_without_names_of_classes_are_read_by_value_and_one_that_is_no_class_is_refused(tmp_path):
    unnamed = segments(tmp_path / "a.seg.nrrd", VALUES, (0, 0, 0), {1: "Segment_1", 2: "Segment_2"})
    assert np.array_equal(case(tmp_path, unnamed).read(LABELS).label_codes_XYZ, VALUES)
    odd = segments(tmp_path / "b.seg.nrrd", VALUES, (0, 0, 0), {1: "core", 2: "bone"})
    with pytest.raises(DataError, match="no class has the name of the segment bone"):
        case(tmp_path, odd).read(LABELS)
    layers = np.stack([VALUES, VALUES])
    path = segments(tmp_path / "c.seg.nrrd", layers, (0, 0, 0), {1: "core", 2: "rim"})
    with pytest.raises(DataError, match="its segments overlap, and are in 2 layers"):
        case(tmp_path, path).read(LABELS)


def test_a_folder_of_images_and_segmentations_of_slicer_is_read(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    one = case(
        tmp_path / "images", segments(tmp_path / "labels/image.seg.nrrd", VALUES, (0, 0, 0), {1: "rim", 2: "core"})
    )
    data = ImageFolder(path=tmp_path, labels={"rim": 1, "core": 2}, cache=Cache(folder=tmp_path / "cache"))
    assert [each.name for each in data.cases().cases] == ["image"]
    assert data.cases().cases[0].files == one.files


def test_the_colour_picture_of_nnunet_is_one_file(tmp_path):
    from trainkit_segmentation.data.msd import MSD

    for kind, pixels in (("imagesTr", np.zeros((8, 9, 3), np.uint8)), ("labelsTr", np.ones((8, 9), np.uint8))):
        (tmp_path / kind).mkdir()
        ending = "_0000.png" if kind == "imagesTr" else ".png"
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(pixels, isVector=pixels.ndim == 3), str(tmp_path / kind / f"a{ending}")
        )
    content = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "road": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"file_ending": ".png"}))
    (found,) = MSD(path=tmp_path, cache=Cache(folder=tmp_path / "cache")).cases().cases
    assert found.inspect().problems == ()
    assert len(found.images) == 1
