"""Data that can be read, but hardly mean what they say, are doubted or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clients import segmentation_cases as made_up
from inspected import inspected
from PIL import Image

from trainkit import DataError
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.data.image_table import ImageTable
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.files.images import read_header
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.file import SplitFile
from trainkit_segmentation.splits.listed import Listed
from trainkit_segmentation.splits.same_cases import SameCases
from trainkit_segmentation.splits.shared_subjects import doubts_about_subjects

LABELS = {"rim": 1, "core": 2}


def table(folder: Path, rows: list[str], **settings) -> ImageTable:
    for number in range(4):
        label = made_up.shells(number, 2)
        made_up.save(folder / f"l{number}.nii.gz", label)
        made_up.save(folder / f"i{number}.nii.gz", made_up.image_of(label, number))
    (folder / "cases.csv").write_text("\n".join(rows))
    how = {"labels": LABELS, "split": SameCases(), "case": "name", "cache": Cache(folder=folder / "cache")} | settings
    return ImageTable(path=folder / "cases.csv", **how)


def doubts(data) -> list[str]:
    return [line.removeprefix("warning: ") for line in inspected(data, "headers") if line.startswith("warning: ")]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ("i0.nii.gz,l1.nii.gz", "the cases a, b have the same image"),
        ("i1.nii.gz,l0.nii.gz", "the cases a, b have the same label"),
        ("i1.nii.gz,i1.nii.gz", "b: the image and the label are one file"),
        ("i1.nii.gz,l1.nii.gz", None),
    ],
)
def test_a_file_of_two_cases_or_of_two_parts_of_one_is_doubted(tmp_path, files, told):
    found = doubts(table(tmp_path, ["name,image,label", "a,i0.nii.gz,l0.nii.gz", f"b,{files}"]))
    assert len(found) == (told is not None)
    assert not told or found[0].startswith(told)


def test_one_file_for_two_masks_is_doubted(tmp_path):
    rows = ["name,image,liver,tumour", "a,i0.nii.gz,l0.nii.gz,l0.nii.gz", "b,i1.nii.gz,l1.nii.gz,l1.nii.gz"]
    assert doubts(table(tmp_path, rows, labels=None, masks=("liver", "tumour"))) == ["a, b: two masks are one file"]


def test_a_row_with_too_many_cells_is_refused(tmp_path):
    with pytest.raises(DataError, match='row 3 has more cells than there are columns; put a text that contains ","'):
        doubts(table(tmp_path, ["name,image,label", "a,i0.nii.gz,l0.nii.gz", "b,i1.nii.gz,l1.nii.gz,part 2"]))


@pytest.mark.parametrize("fold", ["test", "-1", "0.5"])
def test_a_case_of_a_fold_that_is_no_number_is_not_trained_on_silently(tmp_path, fold):
    rows = [
        f"{name},i{k}.nii.gz,l{k}.nii.gz,{of}"
        for k, (name, of) in enumerate(zip("abcd", ["0", "1.0", "", fold], strict=True))
    ]
    data = table(tmp_path, ["name,image,label,fold", *rows], fold="fold", split=Listed())
    with pytest.raises(DataError, match=rf'neither numbers from 0 nor "train" or "val": {fold} \(d\)'):
        doubts(data)
    whole = table(tmp_path, ["name,image,label,fold", *rows[:3]], fold="fold", split=Listed(fold=1))
    assert whole.cases().folds == {"a": 0, "b": 1}
    assert "split: 2 train, 1 val" in inspected(whole, "headers")


def test_held_out_cases_of_persons_that_are_trained_on_are_doubted(tmp_path):
    rows = [f"{name},i{k}.nii.gz,l{k}.nii.gz,{who}" for k, (name, who) in enumerate(zip("abcd", "xxyz", strict=True))]
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "c"], "val": ["b", "d"]}))
    data = table(
        tmp_path, ["name,image,label,who", *rows], subject="who", split=SplitFile(path=tmp_path / "split.json")
    )
    (found,) = doubts(data)
    assert found.startswith("other cases of the same persons are trained on")
    assert found.endswith(": b")
    assert not list(doubts_about_subjects({"train": ["a", "b"], "val": ["a", "b"]}, {"a": "x", "b": "x"}))


def pictures(folder: Path, labels: dict[str, int] | None = None) -> ImageFolder:
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(2):
        label = rng.integers(0, 4, (16, 24)).astype(np.uint8)
        Image.fromarray(np.stack([label] * 3, axis=-1)).save(folder / f"labels/c{number}.png")
        Image.fromarray(label * 50).save(folder / f"images/c{number}.png")
    how = {"split": SameCases(), "cache": Cache(folder=folder / "cache"), "file_spacing_mm": (1.0, 1.0, 1.0)}
    return ImageFolder(path=folder, labels=labels, patch_size=(16, 16, 1), **how)


def test_a_grey_label_that_was_saved_in_colour_is_not_taken_for_three_masks(tmp_path):
    with pytest.raises(DataError, match=r"channel 0 should be the mask of a class, but has several values, 1 to 3"):
        inspected(pictures(tmp_path, {"a": 1, "b": 2, "c": 3}))


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_a_picture_that_is_turned_for_display_is_doubted(tmp_path, ending, orientation):
    picture = Image.fromarray(np.zeros((8, 8), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    question = read_header(tmp_path / f"a.{ending}").open_question
    assert (question is not None and "EXIF orientation 3" in question) == (orientation == 3)


def test_pictures_without_a_label_are_named_in_folders_of_nnunet(tmp_path):
    for name in ("imagesTr/a_0000.png", "labelsTr/a.png", "imagesTr/b_0000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / name)
    content = {"labels": {"background": 0, "cell": 1}, "channel_names": {"0": "x"}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = MSD(path=tmp_path, split=SameCases(), cache=Cache(folder=tmp_path / "cache"))
    assert any("the label of b would be labelsTr/b.png" in each for each in data.cases().doubts)


@pytest.mark.parametrize(
    ("values", "proposed"),
    [((0, 1, 255), {"class_1": 1, "ignore": 255}), ((0, 255), {"class_255": 255}), ((0, 1), {"class_1": 1})],
)
def test_init_ignores_255_beside_other_values_and_takes_it_for_a_class_alone(tmp_path, values, proposed):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.resize(np.array(values, np.uint8), (8, 8))).save(tmp_path / kind / "a.png")
    settings = ImageFolder.recognise(tmp_path)
    assert settings is not None
    assert settings["labels"] == proposed
    assert ImageFolder(**settings).cases().labels.ignored == ((255,) if "ignore" in proposed else ())
