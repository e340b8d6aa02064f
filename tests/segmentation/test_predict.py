"""From files to masks: geometry, label values, how channels are found, and what is said when they are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made
from clients.dicom_series import series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from trainkit import CheckpointError, DataError, Member, RecipeError, read_checkpoint
from trainkit.console import Console
from trainkit.engine.prediction.predict import predict
from trainkit.engine.start import ExitCode, start
from trainkit.inference.plain import Plain
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.cases.case import FileCase
from trainkit_segmentation.cases.image_names import ImageNames
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.files.images import read_header
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.prediction import inputs
from trainkit_segmentation.prediction.cleaning import Cleaning
from trainkit_segmentation.prediction.inputs import ImageFinder
from trainkit_segmentation.prediction.segmentation import SegmentationPredictor
from trainkit_segmentation.prediction.segmentation_live import LiveSegmentationPredictor

CPU = torch.device("cpu")
WINDOWS = SlidingWindow()
VALUES = (0, 3, 7)  # of the label files


class Identity(nn.Module):
    """The most likely class is the one whose number the image has."""

    def __init__(self, exclusive: bool) -> None:
        super().__init__()
        self.exclusive = exclusive

    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        number = batch["image"]
        if self.exclusive:
            return {"logits": torch.cat([10.0 * (number == value) for value in VALUES], 1)}
        return {"logits": torch.cat([20.0 * (number >= value) - 10 for value in VALUES[1:]], 1)}


def facts(exclusive: bool = True, *, files: bool = False, **changes: Any) -> SegmentationFacts:
    named = {0: (), 3: ("outer",), 7: ("inner",) if exclusive else ("outer", "inner")}
    preprocessing = {"normalization": "none", "orientation": "RAS"} | changes.pop("preprocessing", {})
    return SegmentationFacts(
        channels=changes.pop("channels", ("MR",)),
        classes=("outer", "inner"),
        exclusive=exclusive,
        label_values={} if files else named,
        patch_size=(6, 6, 6),
        preprocessing=preprocessing,
        num_training_cases=1,
        training_digest="",
        image_names=ImageNames(),
    )


def predictor(known: SegmentationFacts, inference: Any = WINDOWS, **chosen: Any) -> LiveSegmentationPredictor:
    member = Member("a checkpoint", Identity(known.exclusive), known, inference)
    return SegmentationPredictor(**chosen).build((member,), CPU, lambda progress: None)


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def identity_of(path: Path, folder: Path, **chosen: Any) -> nibabel.Nifti1Image:
    live = predictor(facts(), **chosen)
    (item,) = live.items([path])
    live.predict(item, folder)
    return nibabel.load(folder / f"{item.name}.nii.gz")


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """An affine with any orientation, oblique or not, with voxels that are no cubes."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    turn = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    if draw(st.booleans()):
        oblique, _ = np.linalg.qr(np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
        turn = oblique @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.4, 5.0, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


@given(
    affine=affines(), shape=st.tuples(*[st.integers(1, 13)] * 3), codes=st.tuples(st.integers(0, 4), st.integers(1, 4))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_network_that_returns_its_input_gives_back_geometry_and_labels_exactly(
    tmp_path: Path, affine: np.ndarray[Any, Any], shape: tuple[int, int, int], codes: tuple[int, int]
) -> None:
    label_XYZ = np.random.default_rng(0).choice(VALUES, shape).astype(np.int16)
    image = nibabel.Nifti1Image(label_XYZ, affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    image.header.set_xyzt_units("micron", "msec")
    nibabel.save(image, tmp_path / "odd.nii")
    given_image = nibabel.load(tmp_path / "odd.nii")
    found = identity_of(tmp_path / "odd.nii", tmp_path)
    assert np.array_equal(np.asarray(found.dataobj), label_XYZ)
    assert found.get_data_dtype() == np.uint8
    for each in (
        "qform_code",
        "sform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "srow_x",
        "srow_y",
        "srow_z",
        "pixdim",
        "xyzt_units",
    ):
        assert np.array_equal(found.header[each], given_image.header[each]), each
    assert np.array_equal(found.affine, given_image.affine)


def test_an_image_of_another_format_gives_a_mask_on_its_grid(tmp_path: Path) -> None:
    label_XYZ = np.random.default_rng(0).choice(VALUES, (4, 3, 2)).astype(np.int16)
    lines = ["ObjectType = Image", "NDims = 3", "DimSize = 4 3 2", "ElementSpacing = 0.5 1 2.5", "Offset = 10 -20 30",
             "TransformMatrix = 0 1 0 -1 0 0 0 0 1", "ElementType = MET_SHORT", "ElementByteOrderMSB = False",
             "ElementDataFile = LOCAL"]  # fmt: skip
    (tmp_path / "a.mha").write_bytes("\n".join([*lines, ""]).encode() + label_XYZ.astype("<i2").tobytes(order="F"))
    found = identity_of(tmp_path / "a.mha", tmp_path)
    assert np.array_equal(np.asarray(found.dataobj), label_XYZ)
    # The axes point to posterior, right and superior; to the left and to posterior is negative in NIfTI.
    expected = [[0, 1, 0, -10], [-0.5, 0, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    assert np.allclose(found.affine, expected)
    assert (found.header["sform_code"], found.header["qform_code"]) == (1, 1)
    assert found.header.get_xyzt_units()[0] == "mm"


def test_cropping_and_resampling_are_undone(tmp_path: Path) -> None:
    label_XYZ = np.zeros((14, 12, 10), np.int16)
    label_XYZ[4:12, 2:10, 2:8] = 3
    label_XYZ[6:10, 4:8, 4:6] = 7
    made.save(tmp_path / "a.nii.gz", label_XYZ, np.diag([-1.0, 1, 2, 1]))
    live = predictor(facts(preprocessing={"crop_to_nonzero": True, "spacing_mm": [0.5, 0.5, 1.0]}))
    live.predict(live.items([tmp_path / "a.nii.gz"])[0], new(tmp_path / "out"))
    found = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    assert found.shape == label_XYZ.shape
    assert not found[label_XYZ == 0][: 4 * 12 * 10].any()  # what was cropped is background
    assert (found == label_XYZ).mean() > 0.95  # only edges are moved by the interpolation


@pytest.mark.parametrize("exclusive", [True, False])
def test_each_class_can_have_a_file(tmp_path: Path, exclusive: bool) -> None:
    label_XYZ = np.random.default_rng(0).choice(VALUES, (7, 6, 5)).astype(np.int16)
    made.save(tmp_path / "s1.nii.gz", label_XYZ)
    live = predictor(facts(exclusive, files=not exclusive), files="per_class" if exclusive else "auto")
    live.predict(live.items([tmp_path / "s1.nii.gz"])[0], tmp_path)
    outer, inner = (np.asarray(nibabel.load(tmp_path / "s1" / f"{each}.nii.gz").dataobj) for each in ("outer", "inner"))
    assert np.array_equal(outer, (label_XYZ == 3) if exclusive else (label_XYZ >= 3))
    assert np.array_equal(inner, label_XYZ == 7)


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_probabilities_are_on_the_same_grid_and_flips_do_not_move_anything(
    tmp_path: Path, exclusive: bool, combine: str
) -> None:
    label_XYZ = np.random.default_rng(0).choice(VALUES, (7, 6, 5)).astype(np.int16)
    made.save(tmp_path / "a.nii.gz", label_XYZ, np.diag([1.0, -1, 2, 1]))
    live = predictor(facts(exclusive), Plain(), probabilities=True, combine=combine, flips=("x", "z"))
    live.predict(live.items([tmp_path / "a.nii.gz"])[0], new(tmp_path / "o"))
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "o" / "a.nii.gz").dataobj), label_XYZ)
    found = nibabel.load(tmp_path / "o" / "a_probabilities.nii.gz")
    assert np.array_equal(found.affine, nibabel.load(tmp_path / "a.nii.gz").affine)
    inner = found.get_fdata()[..., -1]
    one = 1 / (1 + (2 if exclusive else 1) * np.exp(-10.0))
    assert np.abs(inner[label_XYZ == 7] - one).max() < 1e-5
    assert inner[label_XYZ != 7].max() < 1e-3


@pytest.mark.parametrize("files", ["labels", "per_class"])
def test_unlikely_parts_are_removed(tmp_path: Path, files: str) -> None:
    label_XYZ = np.zeros((9, 4, 4), np.int16)
    label_XYZ[:4], label_XYZ[1:3], label_XYZ[7, 0, 0] = 3, 7, 3
    made.save(tmp_path / "a.nii.gz", label_XYZ)
    live = predictor(facts(False), files=files, post_processing={"outer": Cleaning(keep_largest=True)})
    said = live.predict(live.items([tmp_path / "a.nii.gz"])[0], new(tmp_path / "o"))
    name = "a.nii.gz" if files == "labels" else "a/outer.nii.gz"
    mask = np.asarray(nibabel.load(tmp_path / "o" / name).dataobj) > 0
    assert np.array_equal(mask, (label_XYZ > 0) & (np.arange(9) < 5)[:, None, None])
    assert said == "outer 0.096 ml, inner 0.048 ml"  # 64 and 32 voxels of 1.5 mm³
    live = predictor(facts(False), files=files, post_processing={"inner": Cleaning(smallest_ml=1.0)})
    said = live.predict(live.items([tmp_path / "a.nii.gz"])[0], new(tmp_path / "none"))
    assert said.endswith("; post-processing removed all of inner")
    with pytest.raises(RecipeError, match=r'there is no class "iner"; did you mean "inner"\?'):
        predictor(facts(), post_processing={"iner": Cleaning()})


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_number_of_classes_times_the_volume() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "predict_memory.py"
    arguments = ["--shape", "160", "160", "128", "--patch", "32", "--classes", "40"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["shape"] == [160, 160, 128]
    assert found["peak"] - found["before"] < 0.6 * found["all scores in float32"]


def test_each_network_gets_the_image_as_it_was_normalised_in_its_training(tmp_path: Path) -> None:
    """Images are normalised by the intensities of the training cases, which differ from fold to fold."""
    made.save(tmp_path / "a.nii.gz", np.arange(8, dtype=np.int16).reshape(2, 2, 2))
    seen: dict[str, torch.Tensor] = {}

    class Recorder(Identity):
        def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
            seen[self.name] = batch["image"][0, 0]
            return super().forward(batch)

    members = []
    for name, mean, deviation in (("one", 2.0, 1.0), ("two", 4.0, 2.0), ("three", 2.0, 1.0)):
        network = Recorder(True)
        network.name = name
        known = facts(preprocessing={"normalization": "foreground", "intensities": [[0.0, 7.0, mean, deviation]]})
        members.append(Member(name, network, known, Plain()))
    live = SegmentationPredictor().build(tuple(members), CPU, lambda progress: None)
    live.predict(live.items([tmp_path / "a.nii.gz"])[0], tmp_path)
    values = torch.arange(8.0).reshape(2, 2, 2)
    assert torch.equal(seen["one"], values - 2)
    assert torch.equal(seen["two"], (values - 4) / 2)
    assert torch.equal(seen["three"], values - 2)
    members[1] = members[1]._replace(data=facts(preprocessing={"spacing_mm": [1, 1, 1]}))
    with pytest.raises(CheckpointError, match=r"one and two cannot .* differ in preprocessing.spacing_mm: None and "):
        SegmentationPredictor().build(tuple(members), CPU, lambda progress: None)


# ---- how images are found -------------------------------------------------------------------------------------------

BRATS = ImageFinder(("t1", "flair"), ImageNames((("_t1", "-t1n"), ("_flair", "-t2f"))))
PLAIN = ImageFinder(("T1", "FLAIR"), ImageNames())
CT = ImageFinder(("ct",), ImageNames(whole=("ct",)))


def touch(folder: Path, *names: str, channels: int = 1) -> Path:
    for name in names:
        shape = (2, 2, 2) if channels == 1 else (2, 2, 2, channels)
        made.save(folder / name, np.zeros(shape, np.uint8))
    return folder


def found(finder: ImageFinder, *inputs: Path) -> dict[str, list[str] | str]:
    items, _ = finder.find(inputs)
    return {item.name: item.problem or [path.name for path in item.paths] for item in items}


def test_channels_are_found_by_the_names_of_the_training_data(tmp_path: Path) -> None:
    old = touch(tmp_path / "B_1", "B_1_flair.nii.gz", "B_1_t1.nii.gz", "B_1_seg.nii.gz")
    touch(tmp_path / "B-2", "B-2-t2f.nii.gz", "B-2-t1n.nii.gz")
    first = {"B_1": ["B_1_t1.nii.gz", "B_1_flair.nii.gz"]}
    assert found(BRATS, old) == found(BRATS, old / "B_1_flair.nii.gz") == first
    assert found(BRATS, tmp_path) == first | {"B-2": ["B-2-t1n.nii.gz", "B-2-t2f.nii.gz"]}
    flat = touch(tmp_path / "flat", "a_0000.nii.gz", "a_0001.nii.gz", "b_T1.nii", "b_FLAIR.nii")
    assert found(PLAIN, flat) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_T1.nii", "b_FLAIR.nii"]}
    touch(tmp_path / "whole", "c.nii.gz", channels=2)
    assert found(PLAIN, tmp_path / "whole") == {"c": ["c.nii.gz"]}
    touch(tmp_path / "ts" / "s1", "ct.nii.gz", "segmentations/liver.nii.gz")
    assert found(CT, tmp_path / "ts") == found(CT, tmp_path / "ts" / "s1" / "ct.nii.gz") == {"s1": ["ct.nii.gz"]}
    numbers = touch(tmp_path / "numbers", "case_0000.nii.gz", "case_0001.nii.gz", channels=2)  # of cases, not channels
    assert list(found(PLAIN, numbers)) == ["case_0000", "case_0001"]
    assert list(found(CT, touch(tmp_path / "one", "case_0000.nii.gz", "case_0001.nii.gz"))) == [
        "case_0000",
        "case_0001",
    ]
    assert found(CT, touch(tmp_path / "cts", "p_0000.nii.gz", "q.nii.gz")) == {
        "p": ["p_0000.nii.gz"],
        "q": ["q.nii.gz"],
    }


def test_a_channel_may_be_a_folder_of_slices(tmp_path: Path) -> None:
    for name in ("B_1/B_1_t1", "B_1/B_1_flair", "B.2/t1", "B.2/flair", "other/v1.5"):
        series(tmp_path / name)
    first = {"B_1": ["B_1_t1", "B_1_flair"]}
    assert found(BRATS, tmp_path / "B_1") == found(BRATS, tmp_path / "B_1" / "B_1_flair") == first
    assert found(PLAIN, tmp_path / "B.2") == {"B.2": ["t1", "flair"]}
    assert found(CT, tmp_path / "other") == {"v1.5": ["v1.5"]}
    (tmp_path / "B_1/B_1_t1").rename(tmp_path / "ct")
    assert "the channel t1 is missing" in found(BRATS, tmp_path / "B_1")["B_1"]
    assert found(CT, tmp_path / "ct")[tmp_path.name] == ["ct"]


@pytest.mark.parametrize(
    ("finder", "names", "channels", "said"),
    [
        (BRATS, ["a_t1.nii.gz"], 1, "the channel flair is missing: there is no a…_flair.nii.gz beside a_t1.nii.gz"),
        (BRATS, ["a_t1.nii.gz", "a-t1n.nii.gz", "a_flair.nii.gz"], 1, "two files for the channel t1: a"),
        (
            PLAIN,
            ["a_FLAIR_0000.nii.gz", "a_FLAIR_0001.nii.gz"],
            1,
            "is channel 0, T1, by its ending, but its name says FLAIR",
        ),
        (
            PLAIN,
            ["a.nii.gz"],
            3,
            r"takes 2 channels \(T1, FLAIR\), but .*a.nii.gz has 3; a file for each channel is called",
        ),
    ],
)
def test_a_channel_that_is_missing_or_swapped_is_one_message(
    tmp_path: Path, finder: ImageFinder, names: list[str], channels: int, said: str
) -> None:
    (item,), _ = finder.find([touch(tmp_path, *names, channels=channels)])
    with pytest.raises(DataError, match=said):
        raise DataError(item.problem)


def test_a_channel_of_another_size_is_one_message(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz")
    made.save(tmp_path / "a_0001.nii.gz", np.zeros((2, 2, 3), np.uint8))
    live = predictor(facts(channels=("T1", "FLAIR")))
    with pytest.raises(
        DataError, match=r"a_0001.nii.gz: the channel is on another grid than a_0000.nii.gz: 2×2×2 and 2×2×3"
    ):
        live.predict(live.items([tmp_path])[0], tmp_path)


def test_what_a_header_leaves_open_and_voxels_that_are_nan_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = nibabel.Nifti1Image(np.full((3, 3, 3), np.nan, np.float32), None)
    nibabel.save(image, tmp_path / "a.nii.gz")
    live = predictor(facts())
    (item,) = live.items([tmp_path])
    with pytest.raises(DataError, match=r"27 of 27 voxels are NaN; .* set predict.nan_as_zero = true"):
        live.predict(item, tmp_path)
    live = predictor(facts(), nan_as_zero=True)
    live.items([tmp_path])
    assert live.predict(item, new(tmp_path / "o")) == "nothing was found"
    assert "a: the header has neither qform nor sform" in caplog.text


def test_an_image_without_the_size_of_a_voxel_is_doubted_where_it_is_resampled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "a.png")
    for spacing_mm, folder in ((None, "own"), ((1.0, 1.0, 1.0), "resampled")):
        assert not caplog.records
        live = predictor(facts(preprocessing={"spacing_mm": spacing_mm}))
        live.predict(live.items([tmp_path / "a.png"])[0], new(tmp_path / folder))
    assert "a: the file does not say how large a voxel is. 1 mm is taken" in caplog.text


def test_mirroring_from_left_to_right_is_doubted_where_classes_differ_in_their_side(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = attrs.evolve(facts(files=True), classes=("kidney_left", "kidney_right"))
    predictor(known, flips=("y", "z"))
    assert not caplog.records
    predictor(known, flips=("x",))
    assert "shows kidney_left and kidney_right the wrong way round" in caplog.text


def test_flips_along_axes_that_training_never_mirrored_are_doubted(caplog):
    known = attrs.evolve(facts(), mirrored_axes=(0,))
    assert SegmentationFacts.from_json(known.to_json()).mirrored_axes == (0,)
    predictor(known, flips=("x",))
    predictor(facts(), flips=("y",))  # of an older version, which did not say it
    assert "never saw" not in caplog.text
    predictor(known, flips=("x", "y", "z"))
    assert "mirrors along y and z, along which no patch was mirrored in training" in caplog.text


def test_without_an_orientation_the_images_say_which_flip_goes_from_left_to_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = facts(files=True, preprocessing={"orientation": None})
    known = attrs.evolve(known, classes=("kidney_left", "kidney_right"))
    live = predictor(known, flips=("z",))
    for name, affine in (
        ("upright", np.eye(4)),
        ("lying", np.eye(4)[[2, 1, 0, 3]]),
        ("again", np.eye(4)[[2, 1, 0, 3]]),
    ):
        made.save(tmp_path / f"{name}.nii.gz", np.zeros((6, 6, 6), np.uint8), affine)
        live.predict(live.items([tmp_path / f"{name}.nii.gz"])[0], new(tmp_path / name))
        assert len([each for each in caplog.records if "the wrong way round" in each.message]) == (name != "upright")


def test_a_mask_does_not_take_the_place_of_probabilities(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_probabilities.nii.gz")
    problems = [each.problem for each in predictor(facts(), probabilities=True).items([tmp_path])]
    assert problems[0] is None
    assert "would be its mask and the probabilities of a: predict it into another folder" in str(problems[1])
    assert not any(each.problem for each in predictor(facts()).items([tmp_path]))


def test_channels_with_other_axes_are_turned_onto_the_first(tmp_path: Path) -> None:
    first_XYZ = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([1.0, 1.5, 2, 1])
    made.save(tmp_path / "a_0000.nii.gz", first_XYZ, affine)
    flipped = affine @ np.array([[-1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    made.save(tmp_path / "a_0001.nii.gz", first_XYZ[::-1], flipped)
    case = FileCase("a", "a", (tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"), None, channels=2)
    image_CXYZ, _ = case.read_image()
    assert np.array_equal(image_CXYZ[0], image_CXYZ[1])


@pytest.mark.parametrize("named", [False, True])
def test_headers_are_read_once_however_many_cases_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    names = [f"case_{n}_{channel}.nii.gz" for n in range(8) for channel in ("0000", "0001")]
    touch(tmp_path, *names)
    read: Counter[Path] = Counter()

    def count(path: Path) -> Any:
        read[path] += 1
        return read_header(path)

    monkeypatch.setattr(inputs, "read_header", count)
    assert len(found(PLAIN, *([tmp_path / name for name in names] if named else [tmp_path]))) == 8
    assert set(read.values()) == {2 if named else 1}  # a named file is also one of those beside a named file


def test_a_folder_without_images_says_what_is_in_it(tmp_path: Path) -> None:
    touch(tmp_path / "imagesTs" / "deeper", "a.nii.gz")
    with pytest.raises(DataError, match=r"there is no image in .*: it holds the folders imagesTs"):
        PLAIN.find([tmp_path])


def test_networks_of_other_data_do_not_predict_together() -> None:
    members = [
        Member(name, Identity(True), known, Plain())
        for name, known in (("one", facts()), ("two", facts(channels=("CT",))))
    ]
    with pytest.raises(
        CheckpointError, match=r"one and two cannot predict together: their data differ in the channels"
    ):
        SegmentationPredictor().build(tuple(members), CPU, lambda progress: None)
    with pytest.raises(RecipeError, match=r'predict.files = "labels": the classes overlap'):
        predictor(facts(False, files=True), files="labels")


# ---- a trained network, on another machine --------------------------------------------------------------------------

RECIPE = """
trainkit = 1
[run]
name = "made"
epochs = 1
device = "cpu"
[data]
use = "brats"
path = "data"
edition = "2021"
patch_size = [16, 16, 16]
steps_per_epoch = 3
split = { use = "fraction", validation_fraction = 0.5 }
[data.preprocessing]
normalization = "zscore_nonzero"
spacing_mm = [1.5, 1.2, 1.5]
[model]
use = "unet"
channels = [4, 8, 8]
[losses.overlap]
use = "dice_ce"
[metrics.dice]
use = "dice"
[inference]
use = "sliding_window"
"""


@pytest.fixture(scope="module")
def moved_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder elsewhere than where it trained, and its held-out cases; the training data are gone."""
    folder = tmp_path_factory.mktemp("site")
    data = made.brats(folder / "data", cases=4)
    ending = start(resolve_text(RECIPE, folder, (f"run.dir={folder / 'runs'}",)), Console(quiet=True))
    assert ending.code is ExitCode.FINISHED
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    held_out = [batch["case"] for batch in ending.run.state.data.evaluate("val")]
    for name in held_out:
        shutil.copytree(data / name, elsewhere / "cases" / name)
    run = Path(shutil.copytree(ending.run.state.folder, elsewhere / "moved"))
    shutil.rmtree(folder)
    return run, elsewhere / "cases"


@pytest.mark.slow
def test_the_masks_have_the_dice_that_the_run_found_without_its_data(
    moved_run: tuple[Path, Path], tmp_path: Path
) -> None:
    run, cases = moved_run
    done = predict(
        [run], [cases], tmp_path / "out", Console(quiet=True), device="cpu", sets=["predict.files=per_class"]
    )
    assert done is ExitCode.FINISHED
    metrics = read_checkpoint(next((run / "checkpoints").glob("epoch-*")))["metrics"]
    for region, values in (("whole_tumor", (1, 2, 4)), ("tumor_core", (1, 4)), ("enhancing_tumor", (4,))):
        scores = []
        for case in sorted(cases.iterdir()):
            mask = np.asarray(nibabel.load(tmp_path / "out" / case.name / f"{region}.nii.gz").dataobj)
            true = np.isin(np.asarray(nibabel.load(case / f"{case.name}_seg.nii.gz").dataobj), values)
            scores.append(2 * (mask & true).sum() / (mask.sum() + true.sum()))
        assert np.mean(scores) == pytest.approx(metrics[f"val/dice_{region}"], abs=1e-6)


def test_probabilities_are_averaged_as_soon_as_there_is_something_to_average(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="trainkit.segmentation")
    predictor(facts())
    assert not caplog.messages
    predictor(facts(), flips=("x", "z"))
    predictor(facts(), flips=("x",), combine="logits")
    assert caplog.messages == [
        "averaged are the probabilities of one network and 4 mirrored forms of each window",
        "averaged are the logits of one network and 2 mirrored forms of each window",
    ]
