"""How people keep their data: lists of MONAI, several files a case, names in the recipe, a class in each channel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.opened_data import AS_IN_FILES, opened, volumes
from inspected import inspected, refusal

from trainkit_segmentation.data.datalist import Datalist
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.listed import Listed
from trainkit_segmentation.splits.same_cases import SameCases

LABELS = {"rim": 1, "core": 2}


def listed(folder: Path, cases: int = 4, **more: Any) -> Path:
    """Write cases of two files for the image and one for the label, and a list of them with folds."""
    rows = []
    for n in range(cases):
        label = made_up.shells(n, 2)
        made_up.save(folder / f"scans/p{n:02d}_t1.nii.gz", made_up.image_of(label, n))
        made_up.save(folder / f"scans/p{n:02d}_t2.nii.gz", made_up.image_of(label, n + 50))
        made_up.save(folder / f"scans/p{n:02d}_seg.nii.gz", label)
        images = [f"scans/p{n:02d}_{channel}.nii.gz" for channel in ("t1", "t2")]
        rows.append({"image": images, "label": f"scans/p{n:02d}_seg.nii.gz", "fold": n % 2})
    (folder / "list.json").write_text(json.dumps({"training": rows} | more))
    return folder / "list.json"


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_a_list_of_files_is_an_image_with_a_channel_in_each_and_names_the_case_by_what_they_share(tmp_path, cache):
    path = listed(tmp_path)
    data = Datalist(
        path=path, channels=("t1", "t2"), labels=LABELS, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES
    )
    found = volumes(data)
    assert sorted(found) == ["p00", "p01", "p02", "p03"]
    for n, batch in enumerate(found.values()):
        label = made_up.shells(n, 2)
        for channel, seed in enumerate((n, n + 50)):
            assert np.array_equal(batch["image"][0, channel], made_up.image_of(label, seed))
        assert np.array_equal(batch["label"][0, 0], label)
    assert opened(data).facts()["channels"] == ["t1", "t2"]


def test_what_neither_list_nor_recipe_names_is_refused_with_the_lines_to_paste(tmp_path, cache):
    told = refusal(Datalist(path=listed(tmp_path), cache=cache))
    assert 'data.channels = ["channel_0", "channel_1"]' in told
    assert "data.labels = { class_1 = 1, class_2 = 2 }; the first 4 labels have the values 0, 1, 2" in told


def test_the_folds_of_a_list_are_its_split_and_are_mentioned_where_they_are_not_used(tmp_path, cache):
    data = Datalist(path=listed(tmp_path), channels=("t1", "t2"), labels=LABELS, cache=cache, split=Listed(fold=1))
    assert sorted(volumes(data)) == ["p01", "p03"]
    assert not [line for line in inspected(data) if line.startswith("the list has")]
    other = Datalist(path=data.path, channels=("t1", "t2"), labels=LABELS, cache=cache, split=Fraction())
    (note,) = [line for line in inspected(other) if line.startswith("the list has")]
    assert note.startswith("the list has folds (0, 1), which are not used")
    absent = Datalist(path=data.path, channels=("t1", "t2"), labels=LABELS, cache=cache, split=Listed(fold=2))
    assert "the folds 0, 1; there is no fold 2" in refusal(absent)


def test_cases_that_a_list_keeps_for_validation_are_held_out_or_doubted(tmp_path, cache):
    content = json.loads(listed(tmp_path).read_text())
    rows = [{key: row[key] for key in ("image", "label")} for row in content["training"]]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": rows[:3], "validation": rows[3:], "testing": ["a.nii.gz"]}))
    data = Datalist(path=path, channels=("t1", "t2"), labels=LABELS, cache=cache, split=Listed())
    assert list(volumes(data)) == ["p03"]
    mixed = Datalist(path=path, channels=("t1", "t2"), labels=LABELS, cache=cache, split=Fraction())
    assert any(line.startswith("warning: the list has 1 case for validation, p03") for line in inspected(mixed))


def test_one_person_is_not_on_both_sides_of_the_folds_of_a_list(tmp_path, cache):
    content = json.loads(listed(tmp_path).read_text())
    rows = [row | {"id": f"visit{n}", "subject": f"person{n // 2}"} for n, row in enumerate(content["training"])]
    (tmp_path / "list.json").write_text(json.dumps({"training": rows}))
    data = Datalist(
        path=tmp_path / "list.json", channels=("t1", "t2"), labels=LABELS, cache=cache, split=Listed(fold=0)
    )
    assert "other cases of the same person as visit0, visit2 are trained on" in refusal(data)


def test_a_list_without_folds_cannot_be_the_split(tmp_path, cache):
    folder = made_up.nnunet(tmp_path, cases=2)
    assert "gives neither folds nor cases for validation" in refusal(MSD(path=folder, cache=cache, split=Listed()))


def test_paths_of_a_list_can_be_relative_to_another_folder(tmp_path, cache):
    path = listed(tmp_path / "data").rename(tmp_path / "elsewhere.json")
    data = Datalist(
        path=path, root=tmp_path / "data", channels=("t1", "t2"), labels=LABELS, cache=cache, split=SameCases()
    )
    assert len(volumes(data)) == 4


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"image": [], "label": "a"}, '"image" must be a file or a list of files'),
        ({"image": [1], "label": "a"}, '"image" must be a file or a list of files'),
        ({"image": "a", "label": ["b", "c"]}, '"label" must be one file'),
        ({"image": "a", "label": "b", "fold": 1.5}, '"fold" must be a number'),
    ],
)
def test_an_entry_that_cannot_be_understood_is_told(tmp_path, cache, row, told):
    (tmp_path / "list.json").write_text(json.dumps({"training": [row]}))
    assert told in refusal(Datalist(path=tmp_path / "list.json", channels=("t1",), labels=LABELS, cache=cache))


def test_a_folder_without_dataset_json_is_told_of_the_list_that_is_there(tmp_path, cache):
    listed(tmp_path)
    assert "there is list.json: name the list itself" in refusal(MSD(path=tmp_path, cache=cache))


# ---- a class in each channel ----------------------------------------------------------------------------------------


def one_hot(folder: Path, channels_of: Any, cases: int = 2) -> Path:
    """Make a folder of nnU-Net whose labels are what ``channels_of`` makes of label values, channels first."""
    made_up.nnunet(folder, cases=cases)
    for path in (folder / "labelsTr").iterdir():
        values = np.asarray(made_up.shells(int(path.name[5:8]), 2))
        made_up.save(path, np.stack(channels_of(values), axis=-1).astype(np.uint8))
    return folder


def test_channels_of_a_label_are_classes_that_may_overlap(tmp_path, cache):
    folder = one_hot(tmp_path, lambda values: [values > 0, values == 2])
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    live = opened(data)
    assert (live.classes, live.exclusive) == (("rim", "core"), False)
    for n, batch in enumerate(volumes(data).values()):
        values = made_up.shells(n, 2)
        assert np.array_equal(batch["label"][0], np.stack([values > 0, values == 2]).astype(np.float32))
    assert "each channel of a label is the mask of a class: channel 0 is rim, 1 is core" in "\n".join(inspected(data))
    core = MSD(path=folder, classes=("core",), cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    for n, batch in enumerate(volumes(core).values()):
        assert np.array_equal(batch["label"][0, 0], made_up.shells(n, 2) == 2)


def test_with_a_channel_of_the_background_classes_exclude_each_other(tmp_path, cache):
    folder = one_hot(tmp_path, lambda values: [values == value for value in range(3)])
    data = MSD(path=folder, cache=cache, split=SameCases(), preprocessing=AS_IN_FILES)
    assert opened(data).exclusive
    for n, batch in enumerate(volumes(data).values()):
        assert np.array_equal(batch["label"][0, 0], made_up.shells(n, 2))


def test_channels_that_do_not_fit_the_classes_are_told(tmp_path, cache):
    three = one_hot(tmp_path / "a", lambda values: [values > 0, values == 1, values == 2])
    assert "channel 0 should be the background" in refusal(MSD(path=three, cache=cache, split=SameCases()))
    four = one_hot(tmp_path / "b", lambda values: [values == 0] * 4)
    assert "the label has 4 channels, but the data set names 2 classes, rim, core" in refusal(
        MSD(path=four, cache=cache, split=SameCases())
    )
    mixed = one_hot(tmp_path / "c", lambda values: [values > 0, values == 2], cases=3)
    made_up.save(mixed / "labelsTr/case_002.nii.gz", made_up.shells(2, 2))
    told = refusal(MSD(path=mixed, cache=cache, split=SameCases()))
    assert "case_002.nii.gz: the label has 1 channel instead of 2, one for each class" in told
