"""A list of cases means one thing: nothing is left out in silence, no two names for one thing, no hint to another."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from inspected import inspected, refusal

from trainkit_segmentation.cases.naming import name_cases
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.totalsegmentator import TotalSegmentator
from trainkit_segmentation.spelling import spelled_alike
from trainkit_segmentation.splits.file import SplitFile
from trainkit_segmentation.splits.same_cases import SameCases


def described(folder: Path, **changes: Any) -> Path:
    """Change ``dataset.json``; None removes a key."""
    path = folder / "dataset.json"
    content = {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}
    path.write_text(json.dumps(content))
    return folder


def doubts(data) -> list[str]:
    return [line for line in inspected(data) if line.startswith("warning: ")]


# ---- nothing is left out in silence ---------------------------------------------------------------------------------


def test_images_without_a_label_are_named_and_counted_by_check_and_by_the_run(tmp_path, cache, caplog):
    folder = made_up.nnunet(tmp_path / "data", channels=2, cases=3)
    for channel in range(2):
        made_up.save(folder / f"imagesTr/lost_{channel:04d}.nii.gz", np.ones(made_up.SIZE, np.int16))
    data = MSD(path=folder, cache=cache, split=SameCases())
    (doubt,) = [line for line in doubts(data) if "no label" in line]
    assert doubt == (
        "warning: 1 image has no label and is left out: lost (imagesTr/lost_0000.nii.gz); "
        "the label of lost would be labelsTr/lost.nii.gz"
    )
    with caplog.at_level(logging.WARNING, "trainkit"):
        opened(data)
    assert doubt.removeprefix("warning: ") in caplog.messages


def test_a_label_without_an_image_is_refused_with_its_name(tmp_path, cache):
    folder = made_up.nnunet(tmp_path / "data", channels=1, cases=3)
    (folder / "imagesTr/case_001_0000.nii.gz").unlink()
    told = refusal(MSD(path=folder, cache=cache))
    assert f"case_001: there is no image {folder}/imagesTr/case_001_0000.nii.gz" in told
    assert "case_000" not in told


def test_a_channel_that_is_not_declared_and_a_label_of_another_ending_are_doubted(tmp_path, cache):
    folder = described(made_up.nnunet(tmp_path / "data", channels=2, cases=3), channel_names={"0": "T1"})
    made_up.save(folder / "labelsTr/case_009.nii", np.ones(made_up.SIZE, np.uint8))
    channel, label = doubts(MSD(path=folder, cache=cache, patch_size=(16, 16, 16)))
    assert "3 image files of cases are left out, because dataset.json declares 1 channel: " in channel
    assert "imagesTr/case_000_0001.nii.gz" in channel
    assert "1 label file is left out, because the name does not end in .nii.gz: labelsTr/case_009.nii" in label


def test_files_that_a_list_does_not_name_are_counted_without_a_doubt(tmp_path, cache):
    folder = made_up.msd(tmp_path / "data", cases=4)
    content = json.loads((folder / "dataset.json").read_text())
    described(folder, training=content["training"][:3], numTraining=3)
    data = MSD(path=folder, cache=cache, patch_size=(16, 16, 16), split=SameCases())
    lines = inspected(data)
    for part in ("imagesTr", "labelsTr"):
        expected = f"1 file in {part} is left out, because dataset.json does not list it: case_003.nii.gz"
        assert expected in lines
    assert not doubts(data)


def test_folders_without_files_of_the_data_set_are_named(tmp_path, cache):
    brats = made_up.brats(tmp_path / "brats", cases=2)
    total = made_up.totalsegmentator(tmp_path / "total", cases=2)
    for folder in (brats, total):
        (folder / "wrongly_unpacked" / "inner").mkdir(parents=True)
    structures = made_up.STRUCTURES
    for data in (BraTS(path=brats, cache=cache), TotalSegmentator(path=total, cache=cache, structures=structures)):
        assert data.find().doubts[0].endswith("are left out: wrongly_unpacked")


def test_an_image_of_two_cases_is_doubted(tmp_path, cache):
    folder = made_up.msd(tmp_path / "data", cases=3)
    entries = json.loads((folder / "dataset.json").read_text())["training"]
    entries[2]["image"] = entries[0]["image"]
    described(folder, training=entries)
    told = doubts(MSD(path=folder, cache=cache, patch_size=(16, 16, 16), split=SameCases()))
    assert any("the cases case_000, case_002 have the same image imagesTr/case_000.nii.gz" in each for each in told)


# ---- one name, one thing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ('{"background": 0, "rim": 1, "core": 2, "middle": 2}', '"core" and "middle" are two names for label value 2'),
        ('{"background": 0, "air": 0, "rim": 1}', '"background" and "air" are two names for label value 0'),
        ('{"background": 0, "a": [1, 2], "b": [2, 1]}', '"a" and "b" are two names for label values 1, 2'),
        ('{"0": "background", "1": "rim", "01": "core"}', '"rim" and "core" are two names for label value 1'),
        ('{"0": "background", "1": "rim", "2": "rim"}', '"rim" is the name of two label values, 1 and 2'),
        ('{"background": 0, "rim": 1, "rim": 2}', '"rim" is there twice, as 1 and as 2'),
        ('{"background": 0, "rim": 1.5}', '"rim" has no label value: 1.5'),
        ('{"background": 0, "rim": true}', '"rim" has no label value: True'),
    ],
)
def test_two_names_for_a_value_or_two_values_for_a_name_are_refused_with_both(tmp_path, cache, labels, told):
    folder = made_up.nnunet(tmp_path / "data", cases=2)
    content = (folder / "dataset.json").read_text()
    before = json.dumps({"background": 0, "rim": 1, "core": 2})
    assert before in content
    (folder / "dataset.json").write_text(content.replace(before, labels))
    assert told in refusal(MSD(path=folder, cache=cache))


def test_two_regions_of_the_recipe_with_the_same_values_are_refused(tmp_path, cache):
    folder = made_up.nnunet(tmp_path / "data", cases=2)
    regions = {"whole": (1, 2), "all": (2, 1)}
    assert "whole and all are two names for the label values" in refusal(MSD(path=folder, regions=regions, cache=cache))


def test_files_that_are_called_alike_are_cases_named_by_their_folders(tmp_path, cache):
    source = made_up.msd(tmp_path / "source", cases=3)
    entries = []
    for number, patient in enumerate(("anna", "bela", "carl")):
        for kind in ("imagesTr", "labelsTr"):
            there = tmp_path / "data" / patient / "mr" / kind.replace("Tr", ".nii.gz")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes((source / kind / f"case_{number:03d}.nii.gz").read_bytes())
        entries.append({key: f"{patient}/mr/{key}s.nii.gz" for key in ("image", "label")})
    (tmp_path / "data" / "dataset.json").write_bytes((source / "dataset.json").read_bytes())
    folder = described(tmp_path / "data", training=entries)
    found = MSD(path=folder, cache=cache).find()
    assert [case.name for case in found.cases] == ["anna", "bela", "carl"]
    assert "cases are named by their folders, because their files are called alike" in found.notes


def test_cases_are_named_by_what_tells_them_apart_and_one_folder_is_one_person():
    def named(*paths: str):
        found = name_cases([Path(each) for each in paths])
        return list(zip(found.names, found.subjects, strict=True))

    assert named("labels/a", "labels/b") == [("a", "a"), ("b", "b")]
    assert named("x/anna/seg", "x/bela/seg") == [("anna", "anna"), ("bela", "bela")]
    visits = named("x/anna/first", "x/anna/second", "x/bela/first")
    assert visits == [("anna/first", "anna"), ("anna/second", "anna"), ("bela/first", "bela")]
    sites = named("x/north/1", "x/north/2", "x/north/3", "x/south/1", "x/south/2")
    assert sites[0] == ("north/1", "north/1")  # two sites with many cases each are no persons
    assert named("a/label", "a/b/label") == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_with_accents_are_found_in_either_form(tmp_path, cache, listed, on_disk):
    source = made_up.msd(tmp_path / "source", cases=2)
    folder = tmp_path / "data"
    names, entries = ["Schädel 01", "Ñandú.v2"], []
    for number, name in enumerate(names):
        for kind in ("imagesTr", "labelsTr"):
            there = folder / kind / unicodedata.normalize(on_disk, f"{name}.NII.GZ")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes((source / kind / f"case_{number:03d}.nii.gz").read_bytes())
        file = unicodedata.normalize(listed, f"{name}.NII.GZ")
        entries.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    (folder / "dataset.json").write_bytes((source / "dataset.json").read_bytes())
    (tmp_path / "held_out.txt").write_text(unicodedata.normalize("NFD", names[0]), encoding="utf-8")
    split = SplitFile(path=tmp_path / "held_out.txt")
    data = MSD(path=described(folder, training=entries, numTraining=2), cache=cache, split=split)
    assert "split: 1 train, 1 val" in inspected(data)
    assert [case.name for case in data.find().cases] == sorted(names)


def test_two_folders_of_one_name_in_both_forms_are_refused(tmp_path, cache):
    folder = made_up.brats(tmp_path / "data", cases=2)
    for case, form in zip(sorted(folder.iterdir()), ("NFC", "NFD"), strict=True):
        case.rename(folder / unicodedata.normalize(form, "Zoë"))
    assert "several cases have one name: Zoë" in refusal(BraTS(path=folder, cache=cache))


def test_a_list_that_was_written_on_windows_is_read(tmp_path, cache):
    folder = made_up.msd(tmp_path / "data", cases=2)
    entries = json.loads((folder / "dataset.json").read_text())["training"]
    described(folder, training=[{key: path.replace("/", "\\") for key, path in each.items()} for each in entries])
    assert [case.name for case in MSD(path=folder, cache=cache).cases().cases] == ["case_000", "case_001"]


def test_a_list_with_paths_of_another_machine_is_told_where_the_files_are(tmp_path, cache):
    folder = made_up.msd(tmp_path / "data", cases=2)
    entries = json.loads((folder / "dataset.json").read_text())["training"]
    described(folder, training=[{key: f"/home/other/{path[2:]}" for key, path in each.items()} for each in entries])
    told = refusal(MSD(path=folder, cache=cache))
    assert "case_001: there is no image /home/other/imagesTr/case_001.nii.gz" in told
    assert "of this case there is ./imagesTr/case_001.nii.gz, ./labelsTr/case_001.nii.gz" in told


def test_channels_that_are_not_numbered_from_0_and_an_ending_that_no_file_has_are_told(tmp_path, cache):
    folder = described(made_up.nnunet(tmp_path / "data", cases=2), channel_names={"0": "T1", "2": "T2"})
    assert "channels must be numbered from 0, got 0, 2" in refusal(MSD(path=folder, cache=cache))
    described(folder, channel_names={"0": "T1", "1": "T2"}, file_ending=".nii")
    told = refusal(MSD(path=folder, cache=cache))
    assert "there are no training cases; labelsTr holds 2 files, for example case_000.nii.gz" in told


# ---- hints ----------------------------------------------------------------------------------------------------------


def test_no_hint_names_a_file_of_another_case(tmp_path, cache):
    folder = made_up.nnunet(tmp_path / "data", channels=2, cases=4)
    (folder / "imagesTr/case_001_0001.nii.gz").unlink()
    (folder / "imagesTr/case_003_0000.nii.gz").unlink()
    (folder / "imagesTr/case_003_0001.nii.gz").rename(folder / "imagesTr/Case-3_0001.nii.gz")
    told = refusal(MSD(path=folder, cache=cache))
    first, second = (line for line in told.split("\n") if "there is no" in line)
    assert first.strip().endswith("case_001_0001.nii.gz; of this case there is case_001_0000.nii.gz")
    assert second.strip().endswith("of this case there is Case-3_0001.nii.gz")
    assert "case_002" not in told


def test_numbers_of_patients_are_not_taken_for_channels(tmp_path, cache):
    folder = made_up.msd(tmp_path / "data", cases=2)
    for kind in ("imagesTr", "labelsTr"):
        for number in range(2):
            (folder / kind / f"case_{number:03d}.nii.gz").rename(folder / kind / f"patient_{number:04d}.nii.gz")
    entries = [
        {"image": f"imagesTr/patient_{n:04d}.nii.gz", "label": f"labelsTr/patient_{n:04d}.nii.gz"} for n in (0, 1)
    ]
    described(folder, training=entries)
    (folder / "imagesTr/patient_0001.nii.gz").unlink()
    (folder / "imagesTr/patient_0007.nii.gz").write_bytes(b"of another patient")
    told = refusal(MSD(path=folder, cache=cache))
    assert "patient_0001: there is no image" in told
    assert "of this case" not in told


def test_a_list_that_names_the_file_of_one_channel_is_told_how_to_name_all(tmp_path, cache):
    folder = made_up.nnunet(tmp_path / "data", channels=3, cases=3)
    entries = [
        {"image": f"imagesTr/case_{n:03d}_0000.nii.gz", "label": f"labelsTr/case_{n:03d}.nii.gz"} for n in range(3)
    ]
    described(folder, training=entries)
    told = refusal(MSD(path=folder, cache=cache))
    assert "the file of one channel as the image of 3 cases, for example imagesTr/case_000_0000.nii.gz" in told
    assert "beside it there is case_000_0001.nii.gz, case_000_0002.nii.gz" in told
    assert 'Write "./imagesTr/case_000.nii.gz"' in told
    described(folder, training=[entry | {"image": entry["image"].replace("_0000", "")} for entry in entries])
    assert len(MSD(path=folder, cache=cache).find().cases) == 3


def test_names_of_two_patients_are_never_alike():
    assert not spelled_alike("case_002", ["case_004", "case_02_b", "case_0020"])
    assert not spelled_alike("anna", ["hanna", "anne"])
    assert spelled_alike("Case 2", ["case_002"]) == ["case_002"]
