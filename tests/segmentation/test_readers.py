"""Folders as data sets have them are read without conversion; what is wrong with them is said, all at once."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from clients import segmentation_cases as made_up
from clients.opened_data import AS_IN_FILES, opened, volumes
from inspected import inspected, refusal

from trainkit import DataError, Problem
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.cases.labels import Labels, encode_values
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.data.totalsegmentator import TotalSegmentator
from trainkit_segmentation.patches.augmentation import Augmentation, Flip
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.file import SplitFile
from trainkit_segmentation.splits.folds import Folds
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.same_cases import SameCases

ROOT = Path(__file__).parents[2]


@pytest.fixture
def real(shared_data):
    return shared_data / "segmentation"


def on_disk(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


# ---- Decathlon and nnU-Net ------------------------------------------------------------------------------------------


def test_a_decathlon_folder_is_read_voxel_for_voxel(tmp_path, cache):
    folder = made_up.msd(tmp_path / "Task99")
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    found = volumes(data)
    assert sorted(found) == [f"case_{n:03d}" for n in range(5)]
    for name, batch in found.items():
        assert np.array_equal(batch["image"][0, 0], on_disk(folder / "imagesTr" / f"{name}.nii.gz"))
        assert np.array_equal(batch["label"][0, 0], on_disk(folder / "labelsTr" / f"{name}.nii.gz"))
    live = opened(data)
    assert (live.classes, live.exclusive, live.num_channels) == (("Anterior", "Posterior"), True, 1)


def test_the_fourth_axis_of_a_file_is_its_channels(tmp_path, cache):
    folder = made_up.msd(tmp_path, channels=3, cases=2)
    for name, batch in volumes(MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)).items():
        assert np.array_equal(batch["image"][0], np.moveaxis(on_disk(folder / "imagesTr" / f"{name}.nii.gz"), -1, 0))


def test_nnunet_has_a_file_a_channel_and_classes_in_the_order_of_its_labels(tmp_path, cache):
    folder = made_up.nnunet(tmp_path, channels=2, cases=2)
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    assert opened(data).classes == ("rim", "core")
    for name, batch in volumes(data).items():
        for channel in range(2):
            there = on_disk(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz")
            assert np.array_equal(batch["image"][0, channel], there)


def test_the_decathlon_header_with_a_file_a_channel_is_nnunet_version_1(tmp_path, cache):
    folder = made_up.nnunet(tmp_path, channels=2, cases=2)
    names = [f"case_{n:03d}.nii.gz" for n in range(2)]
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "rim", "2": "core"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    assert len(volumes(MSD(path=folder, cache=cache, split=SameCases()))) == 2


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_images_and_labels_of_other_formats_are_the_same_cases(tmp_path, cache, ending):
    folder = made_up.nnunet(tmp_path, channels=2, cases=2)
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    expected = volumes(data)
    for path in [*folder.glob("*/*.nii.gz")]:
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path).replace(".nii.gz", ending))
        path.unlink()
    content = json.loads((folder / "dataset.json").read_text()) | {"file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    for name, batch in volumes(data).items():
        assert torch.equal(batch["image"], expected[name]["image"])
        assert torch.equal(batch["label"], expected[name]["label"])
    assert not [line for line in inspected(data) if line.startswith("warning: the header")]


@pytest.mark.parametrize("by", ["nnunet", "recipe"])
def test_regions_are_classes_that_overlap(tmp_path, cache, by):
    folder = made_up.nnunet(tmp_path, cases=2, regions=by == "nnunet")
    regions = {"whole": (1, 2), "core": (2,)} if by == "recipe" else None
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES, regions=regions)
    live = opened(data)
    assert (live.classes, live.exclusive) == (("whole", "core"), False)
    for name, batch in volumes(data).items():
        values = on_disk(folder / "labelsTr" / f"{name}.nii.gz")
        assert np.array_equal(batch["label"][0], np.stack([values >= 1, values == 2]).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": {"background": 0, "ignore": 1}}, 'no class beside the background and "ignore"'),
        ({"labels": {"background": 0, "rim": "one"}}, '"rim" has no label value'),
        ({"labels": None}, '"labels" must name the label values'),
        ({"channel_names": {}}, "names the channels"),
        ({"file_ending": ".mgz"}, 'ending in ".mgz" cannot be read'),
        ({"training": ["case_000"]}, '"training" must be a list of'),
    ],
)
def test_a_dataset_json_that_cannot_be_understood_is_told(tmp_path, cache, change, told):
    folder = made_up.nnunet(tmp_path, cases=1)
    content = json.loads((folder / "dataset.json").read_text()) | change
    (folder / "dataset.json").write_text(json.dumps(content))
    assert told in refusal(MSD(path=folder, cache=cache))


def test_the_folder_above_the_task_is_pointed_below(tmp_path, cache):
    made_up.msd(tmp_path / "Task99", cases=1)
    assert "there is one in Task99" in refusal(MSD(path=tmp_path, cache=cache))


# ---- BraTS ----------------------------------------------------------------------------------------------------------

REGIONS = {
    "2021": {"whole_tumor": (1, 2, 4), "tumor_core": (1, 4), "enhancing_tumor": (4,)},
    "2023": {"whole_tumor": (1, 2, 3), "tumor_core": (1, 3), "enhancing_tumor": (3,)},
    "2024": {"whole_tumor": (1, 2, 3), "tumor_core": (1, 3), "enhancing_tumor": (3,), "resection_cavity": (4,)},
}


@pytest.mark.parametrize("edition", ["2021", "2023", "2024"])
def test_the_edition_of_brats_is_found_and_said_and_its_regions_are_the_challenges(tmp_path, cache, edition):
    folder = made_up.brats(tmp_path / "cases", edition, cases=2)
    data = BraTS(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    assert any(line.startswith(f"BraTS {edition}, recognised from") for line in inspected(data))
    live = opened(data)
    assert (live.classes, live.exclusive, live.num_channels) == (tuple(REGIONS[edition]), False, 4)
    *suffixes, seg = made_up.BRATS_FILES[edition]
    for name, batch in volumes(data).items():
        values = on_disk(folder / name / f"{name}{seg}.nii.gz")
        expected = np.stack([np.isin(values, wanted) for wanted in REGIONS[edition].values()])
        assert np.array_equal(batch["label"][0].numpy(), expected)
        assert all(region.any() for region in expected)
        for channel, suffix in enumerate(suffixes):
            assert np.array_equal(batch["image"][0, channel], on_disk(folder / name / f"{name}{suffix}.nii.gz"))


def test_brats_label_values_can_be_the_classes(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2021", cases=2)
    data = BraTS(path=folder, cache=cache, split=SameCases(), target="labels", preprocessing=AS_IN_FILES)
    assert opened(data).classes == ("necrotic_core", "edema", "enhancing_tumor")
    for name, batch in volumes(data).items():
        values = on_disk(folder / name / f"{name}_seg.nii.gz")
        assert np.array_equal(batch["label"][0, 0], np.select([values == 1, values == 2, values == 4], [1, 2, 3]))


def test_modalities_are_taken_in_the_order_of_the_recipe(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2023", cases=1)
    data = BraTS(path=folder, cache=cache, split=SameCases(), modalities=("flair", "t1c"), preprocessing=AS_IN_FILES)
    ((name, batch),) = volumes(data).items()
    for channel, suffix in enumerate(("-t2f", "-t1c")):
        assert np.array_equal(batch["image"][0, channel], on_disk(folder / name / f"{name}{suffix}.nii.gz"))


def test_names_of_one_edition_with_the_values_of_another_are_not_guessed(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2023", cases=1)
    (label,) = folder.glob("*/*-seg.nii.gz")
    values = on_disk(label)
    made_up.save(label, np.where(values == 3, 4, values).astype(np.uint8))
    told = refusal(BraTS(path=folder, cache=cache, split=SameCases()))
    assert "it is unclear which label is the enhancing tumour" in told
    assert 'data.edition = "2021"' in told
    said = BraTS(path=folder, cache=cache, split=SameCases(), edition="2021")
    assert any("set in the recipe: the enhancing tumour is label 4" in line for line in inspected(said))


def test_the_wrong_edition_in_the_recipe_is_refused_with_the_case_and_the_value(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2021", cases=1)
    told = refusal(BraTS(path=folder, cache=cache, split=SameCases(), edition="2023"))
    assert "BraTS2021_00000: the label has values that are not declared: 4 (" in told
    assert "is in no case" not in told  # which cannot be known of a case that cannot be read


def test_cases_of_two_namings_are_refused(tmp_path, cache):
    made_up.brats(tmp_path / "cases", "2021", cases=1)
    made_up.brats(tmp_path / "cases", "2023", cases=1)
    assert "files of two naming schemes" in refusal(BraTS(path=tmp_path / "cases", cache=cache))


def test_a_missing_modality_and_a_missing_segmentation_are_told_with_their_cases(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2021", cases=3)
    (folder / "BraTS2021_00000" / "BraTS2021_00000_t1ce.nii.gz").unlink()
    (folder / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    told = refusal(BraTS(path=folder, cache=cache))
    assert "BraTS2021_00000: the modality t1c is missing (…_t1ce.nii.gz)" in told
    assert "BraTS2021_00002: the segmentation is missing" in told


def test_time_points_of_one_patient_are_on_one_side_of_the_split(tmp_path, cache):
    folder = made_up.brats(tmp_path / "cases", "2024", cases=4)
    for case in list(folder.iterdir()):
        second = case.with_name(case.name.replace("-100", "-101"))
        shutil.copytree(case, second)
        for path in list(second.iterdir()):
            path.rename(path.with_name(path.name.replace("-100", "-101")))
    for seed in range(4):
        found = BraTS(path=folder, cache=cache).find()
        division = Fraction(validation_fraction=0.25, seed=seed).divide({c.name: c.subject for c in found.cases})
        patients = [{name[:15] for name in cases} for cases in division.values()]
        assert patients[0].isdisjoint(patients[1])
        assert sorted(map(len, division.values())) == [2, 6]


# ---- TotalSegmentator -----------------------------------------------------------------------------------------------


def test_chosen_structures_become_classes_in_their_order(tmp_path, cache):
    folder = made_up.totalsegmentator(tmp_path / "subjects", cases=2)
    structures = ("liver", "kidney_left")
    data = TotalSegmentator(
        path=folder, structures=structures, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES
    )
    live = opened(data)
    assert (live.classes, live.exclusive) == (structures, True)
    for name, batch in volumes(data).items():
        for value, structure in enumerate(structures, start=1):
            mask = on_disk(folder / name / "segmentations" / f"{structure}.nii.gz")
            assert np.array_equal(batch["label"][0, 0] == value, mask == 1)


def test_masks_that_overlap_are_refused_or_several_classes(tmp_path, cache):
    folder = made_up.totalsegmentator(tmp_path / "subjects", cases=2, overlapping=True)
    settings = {"path": folder, "structures": made_up.STRUCTURES, "cache": cache, "split": SameCases()}
    with pytest.raises(DataError, match=r"s0000: the masks kidney_left and liver overlap in \d+ voxels") as caught:
        opened(TotalSegmentator(**settings))
    assert "s0001" in str(caught.value)
    data = TotalSegmentator(**settings, overlap="multi_label", preprocessing=AS_IN_FILES)
    assert not opened(data).exclusive
    for name, batch in volumes(data).items():
        for channel, structure in enumerate(made_up.STRUCTURES):
            mask = on_disk(folder / name / "segmentations" / f"{structure}.nii.gz")
            assert np.array_equal(batch["label"][0, channel].numpy(), mask)


def test_a_structure_that_is_not_there_is_told_with_the_nearest(tmp_path, cache):
    folder = made_up.totalsegmentator(tmp_path / "subjects", cases=1)
    told = refusal(TotalSegmentator(path=folder, structures=("kidney_lft",), cache=cache))
    assert 's0000: there is no mask of kidney_lft; did you mean "kidney_left"?' in told


@pytest.mark.parametrize(
    ("settings", "doubted"),
    [
        ({}, "axis 0"),
        ({"preprocessing": Preprocessing(orientation="SRA")}, "axis 1"),
        ({"preprocessing": Preprocessing(orientation="SAR")}, None),
        ({"classes": ("kidney_left", "liver")}, None),
    ],
)
def test_mirroring_sides_that_are_classes_is_doubted_once_and_along_their_axis(tmp_path, cache, settings, doubted):
    folder = made_up.totalsegmentator(tmp_path / "subjects", cases=2)
    flip = Augmentation(flip=Flip(axes=(0, 1)))
    data = TotalSegmentator(
        path=folder, structures=made_up.STRUCTURES, cache=cache, patch_size=(16, 16, 16), augmentation=flip, **settings
    )
    told = [
        *(data.problems(None) or ()),
        *(each for each in data.inspect(None, "headers") if isinstance(each, Problem)),
    ]
    said = [each for each in told if "left to right" in each.message]
    assert [each.message.split(" goes")[0] for each in said] == ([] if doubted is None else [doubted])
    assert all((each.severity, each.key) == ("warning", "augmentation.flip.axes") for each in said)


# ---- splits ---------------------------------------------------------------------------------------------------------

CASES = {f"case_{n:02d}": f"case_{n:02d}" for n in range(23)}
HELD_OUT = ["case_03", "case_11"]
TRAINED = sorted(set(CASES) - set(HELD_OUT))


def test_a_fraction_is_held_out_the_same_whatever_the_order_in_which_cases_are_listed():
    split = Fraction(validation_fraction=0.2, seed=1)
    division = split.divide(CASES)
    assert division == split.divide(dict(reversed(CASES.items())))
    assert len(division["val"]) == 5
    assert sorted((*division["train"], *division["val"])) == sorted(CASES)
    assert division != Fraction(validation_fraction=0.2, seed=2).divide(CASES)


def test_adding_a_case_moves_at_most_one_other_across_the_split():
    before = set(Fraction(validation_fraction=0.2).divide(CASES)["val"])
    after = set(Fraction(validation_fraction=0.2).divide(CASES | {"another": "another"})["val"])
    assert len(before - after) <= 1


def test_the_folds_hold_out_each_case_once_and_are_of_about_one_size():
    held_out = [Folds(folds=5, fold=fold, seed=4).divide(CASES)["val"] for fold in range(5)]
    assert sorted(case for cases in held_out for case in cases) == sorted(CASES)
    assert {len(cases) for cases in held_out} == {4, 5}


def test_fewer_cases_than_folds_are_refused():
    with pytest.raises(DataError, match="3 cases are too few for 5 folds"):
        Folds(folds=5).divide({name: name for name in "abc"})
    with pytest.raises(DataError, match="6 cases of 2 subjects are too few for 3 folds"):
        Folds(folds=3).divide({f"{s}{n}": s for s in "ab" for n in range(3)})


def test_a_fold_that_is_not_there_is_found_by_check():
    text = '[data]\nuse="segmentation_synthetic"\nsplit={use="folds", folds=3, fold=3}\n'
    with pytest.raises(InvalidRecipe, match="must be below folds = 3, got 3"):
        resolve_text(text, Path.cwd())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("held_out.txt", "case_03\ncase_11\n"),
        ("held_out.json", '["case_11", "case_03"]'),
        ("both.json", json.dumps({"train": TRAINED, "val": HELD_OUT})),
        ("splits_final.json", json.dumps([{"train": TRAINED, "val": HELD_OUT}])),
    ],
)
def test_a_file_says_who_is_held_out(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    division = SplitFile(path=tmp_path / name).divide(CASES)
    assert division == {"train": TRAINED, "val": HELD_OUT}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('["case_3"]', 'no case "case_3"; the data has "case_03"'),
        ('{"train": ["case_01"], "val": ["case_01"]}', "case_01 is both trained on and held out"),
        ('[{"train": ["case_01"], "val": ["case_02"]}]', "has 1 folds; there is no fold 1"),
        ("{", "is not valid JSON"),
        ('{"val": 3}', "expected a list of cases"),
    ],
)
def test_a_split_file_that_does_not_fit_is_told(tmp_path, content, told):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json") as caught:
        SplitFile(path=tmp_path / "split.json", fold=1).divide(CASES)
    assert told in str(caught.value)


# ---- bad input ------------------------------------------------------------------------------------------------------


def spoil_cut_off(folder: Path) -> None:
    path = folder / "imagesTr" / "case_001.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def spoil_flipped_byte(folder: Path) -> None:
    path = folder / "labelsTr" / "case_001.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def spoil_no_gzip(folder: Path) -> None:
    (folder / "imagesTr" / "case_001.nii.gz").write_bytes(b"<html>not found</html>" * 40)


def spoil_empty(folder: Path) -> None:
    (folder / "imagesTr" / "case_001.nii.gz").write_bytes(b"")


def spoil_missing(folder: Path) -> None:
    (folder / "labelsTr" / "case_001.nii.gz").unlink()


def spoil_dimension(folder: Path) -> None:
    made_up.save(folder / "imagesTr" / "case_001.nii.gz", np.zeros((9, 9), np.float32))


def spoil_channels(folder: Path) -> None:
    made_up.save(folder / "imagesTr" / "case_001.nii.gz", np.zeros((*made_up.SIZE, 2), np.float32))


def spoil_nan(folder: Path) -> None:
    image = np.ones(made_up.SIZE, np.float32)
    image[3, 4, :5] = np.nan
    made_up.save(folder / "imagesTr" / "case_001.nii.gz", image)


def spoil_shape(folder: Path) -> None:
    made_up.save(folder / "labelsTr" / "case_001.nii.gz", np.ones((20, 24, 17), np.uint8))


def spoil_affine(folder: Path) -> None:
    affine = np.diag([*made_up.SPACING_MM, 1.0])
    affine[0, 3] = 5.0
    path = folder / "labelsTr" / "case_001.nii.gz"
    made_up.save(path, on_disk(path), affine)


def spoil_values(folder: Path) -> None:
    path = folder / "labelsTr" / "case_001.nii.gz"
    values = on_disk(path)
    values[0, 0, 0] = 7
    made_up.save(path, values)


def spoil_fractions(folder: Path) -> None:
    path = folder / "labelsTr" / "case_001.nii.gz"
    made_up.save(path, on_disk(path) * np.float32(0.75))


def spoil_type(folder: Path) -> None:
    rgb = np.zeros(made_up.SIZE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    made_up.save(folder / "imagesTr" / "case_001.nii.gz", rgb)


SPOILT = [
    (spoil_cut_off, "is truncated or damaged"),
    (spoil_flipped_byte, "damaged"),
    (spoil_no_gzip, "cannot be read as NIfTI"),
    (spoil_empty, "cannot be read as NIfTI"),
    (spoil_missing, "there is no"),
    (spoil_dimension, "expected three dimensions, or four with the channels last, got (9, 9)"),
    (spoil_channels, "the data set has 1 channels, but this image has 2"),
    (spoil_nan, "5 of 8640 voxels are NaN"),
    (spoil_shape, "the label is on another grid than case_001.nii.gz: 20×24×18 and 20×24×17 voxels"),
    (spoil_affine, "corners are up to 5 mm apart"),
    (spoil_values, "values that are not declared: 7 (1 voxels); the declared ones are 0, 1, 2"),
    (spoil_fractions, "voxels of the label are not whole numbers, for example 0.75"),
    (spoil_type, "voxels must be integers or real numbers"),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILT, ids=lambda each: getattr(each, "__name__", ""))
def test_a_spoilt_file_is_told_with_its_case_by_check_and_by_the_run(tmp_path, cache, spoil, told):
    folder = made_up.msd(tmp_path / "Task99", cases=3)
    spoil(folder)
    data = MSD(path=folder, cache=cache)
    for ask in (lambda: inspected(data), lambda: opened(data)):
        with pytest.raises(DataError) as caught:
            ask()
        about = [line for line in str(caught.value).split("\n") if told in line]
        assert len(about) == 1, str(caught.value)
        assert about[0].strip().startswith("case_001: ")
        assert "Traceback" not in str(caught.value)


def test_check_tells_all_that_is_wrong_at_once(tmp_path, cache):
    folder = made_up.msd(tmp_path / "Task99", cases=6)
    for number, spoil in enumerate((spoil_cut_off, spoil_shape, spoil_nan)):
        spoil(folder)
        for kind in ("imagesTr", "labelsTr"):
            here, there = (folder / kind / f"case_{n:03d}.nii.gz" for n in (1, 3 + number))
            there.write_bytes(here.read_bytes())
        made_up.msd(tmp_path / "fresh", cases=2)
        for kind in ("imagesTr", "labelsTr"):
            shutil.copy(tmp_path / "fresh" / kind / "case_001.nii.gz", folder / kind / "case_001.nii.gz")
    told = refusal(MSD(path=folder, cache=cache, split=Folds(folds=7)))
    assert "4 problems in 6 cases" in told
    for expected in ("case_003: ", "case_004: ", "case_005: ", "6 cases are too few for 7 folds"):
        assert expected in told


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((-1, 0, 7), np.int8),
        ((-128, 0, 127), np.int8),
        ((-1, 0, 200), np.uint8),
        ((0, 200, 255), np.uint8),
        ((-1, 0, 70_000), np.int32),
        ((0, 3, 2**40), np.uint64),
        ((-(2**40), 0, 5), np.int64),
        ((0, 5, 2**64 - 1), np.uint64),
        ((-1, 0, 2**63 + 1), np.uint64),
        ((-1, 0, 2**63 + 1), np.int16),
        ((-(2**63), 0, 2**63 - 1), np.int64),
    ],
)
@pytest.mark.parametrize("exclusive", [True, False])
def test_label_values_mean_the_same_in_every_integer_type(values, dtype, exclusive):
    low, middle, high = values
    members = {low: (0,), middle: (), high: (1,)} if exclusive else {low: (0,), middle: (), high: (0, 1)}
    labels = Labels(("a", "b"), exclusive, members)
    there = [value for value in values if np.iinfo(dtype).min <= value <= np.iinfo(dtype).max]
    values_XYZ = np.array(there * 4, dtype=dtype).reshape(2, 2, -1)
    label_codes_XYZ, class_table = encode_values(values_XYZ, labels)
    for value, code in zip(values_XYZ.ravel().tolist(), label_codes_XYZ.ravel().tolist(), strict=True):
        classes = tuple(np.flatnonzero(class_table[code])) if class_table is not None else ((code - 1,) if code else ())
        assert classes == members[value]


def test_a_gzip_file_of_several_members_is_whole(tmp_path, cache):
    folder = made_up.msd(tmp_path, cases=2)
    path = folder / "imagesTr" / "case_001.nii.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    assert any("2 cases" in line for line in inspected(MSD(path=folder, cache=cache)))


def test_a_declared_class_that_no_case_has_is_refused(tmp_path, cache):
    folder = made_up.msd(tmp_path, cases=2)
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"]["3"] = "Vessel"
    (folder / "dataset.json").write_text(json.dumps(content))
    told = (
        'class "Vessel" is in no case: check the label values, train without it: data.classes = '
        '["Anterior", "Posterior"], or keep its output: data.may_be_absent = ["Vessel"]'
    )
    assert told in refusal(MSD(path=folder, cache=cache))
    with pytest.raises(DataError) as caught:
        opened(MSD(path=folder, cache=cache))
    assert told in str(caught.value)


def test_empty_masks_and_small_volumes_are_warned_of(tmp_path, cache):
    folder = made_up.msd(tmp_path, cases=4)
    made_up.save(folder / "labelsTr" / "case_002.nii.gz", np.zeros(made_up.SIZE, np.uint8))
    lines = inspected(MSD(path=folder, cache=cache, patch_size=(32, 16, 16)))
    assert "warning: 1 of 4 cases have no class at all: case_002" in lines
    assert any(line.startswith("smaller than a patch of 32×16×16, and so padded: 4 cases, case_000,") for line in lines)


def test_check_sums_up_what_the_files_say(tmp_path, cache):
    folder = made_up.msd(tmp_path, cases=4)
    turned = np.diag([-1.0, -1.0, 1.5, 1.0])
    for kind in ("imagesTr", "labelsTr"):
        path = folder / kind / "case_003.nii.gz"
        made_up.save(path, on_disk(path)[:, :, :-2], turned)
    lines = inspected(MSD(path=folder, cache=cache, preprocessing=Preprocessing(spacing_mm=(2.0, 1.0, 1.5))))
    assert "split: 3 train, 1 val" in lines
    assert "size: 20×24×16 to 20×24×18 voxels, median 20×24×18" in lines
    assert "spacing: 1×1×1.5 mm" in lines
    assert "orientation: LPS (1), RAS (3)" in lines
    assert "preprocessed: 10×24×16 to 10×24×18 voxels, median 10×24×18" in lines
    share = sum((on_disk(path) == 2).sum() for path in (folder / "labelsTr").iterdir()) / (20 * 24 * (3 * 18 + 16))
    assert f"  Posterior: in 4 of 4 cases, {share:.3%} of all voxels" in lines


def test_made_up_cases_have_both_classes_and_are_the_same_each_time(cache):
    data = SyntheticSegmentation(num_cases=6, size=(20, 20, 20), cache=cache)
    assert "  lesion: in 6 of 6 cases" in "\n".join(inspected(data))
    one, other = data.find().cases[2], data.find().cases[2]
    assert np.array_equal(one.read(data.find().labels).image_CXYZ, other.read(data.find().labels).image_CXYZ)


# ---- real data ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_hippocampus_task_is_read(cache, real):
    data = MSD(path=real / "msd" / "Task04_Hippocampus", cache=cache, patch_size=(32, 32, 32))
    assert "split: 64 train, 16 val" in inspected(data)
    found = volumes(data)
    assert len(found) == 16
    for name, batch in found.items():
        there = on_disk(real / "msd" / "Task04_Hippocampus" / "labelsTr" / f"{name}.nii.gz")
        assert np.array_equal(opened(data).truth(name)[0], there)
        assert batch["image"].std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_brats_case_is_of_2021_with_its_three_regions(cache, real):
    data = BraTS(
        path=real / "brats2021",
        cache=cache,
        split=SameCases(),
        preprocessing=Preprocessing(normalization="zscore_nonzero", crop_to_nonzero=True),
    )
    assert any(line.startswith("BraTS 2021, recognised") for line in inspected(data))
    live = opened(data)
    ((name, batch),) = volumes(data).items()
    values = on_disk(real / "brats2021" / name / f"{name}_seg.nii.gz")
    truth = live.truth(name).numpy()
    assert np.array_equal(truth, np.stack([np.isin(values, wanted) for wanted in REGIONS["2021"].values()]))
    back = live.to_original(batch["label"][0], name).numpy()
    assert np.array_equal(back > 0.5, truth > 0.5)  # all of the tumour lies within the head


@pytest.mark.slow
def test_structures_of_the_totalsegmentator_subject_are_read(cache, real):
    structures = ("liver", "spleen", "kidney_left", "kidney_right")
    data = TotalSegmentator(path=real / "totalseg", structures=structures, cache=cache, split=SameCases())
    truth = opened(data).truth("s0001")
    for value, structure in enumerate(structures, start=1):
        mask = on_disk(real / "totalseg" / "s0001" / "segmentations" / f"{structure}.nii.gz")
        assert np.array_equal(truth[0] == value, mask != 0)
