"""Plain folders of images and labels, and tables of files: which files are a case, its name, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.dicom_series import ARRAY, series
from clients.opened_data import AS_IN_FILES, opened, volumes
from inspected import inspected, refusal

from trainkit import RecipeError
from trainkit.recipe.recognised import recognised
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.data.image_table import ImageTable
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.listed import Listed
from trainkit_segmentation.splits.same_cases import SameCases

LABELS = {"rim": 1, "core": 2}


def saved(folder: Path, image: str, label: str, number: int) -> None:
    """Write a label and the image that belongs to it."""
    values = made_up.shells(number, 2)
    made_up.save(folder / label, values)
    made_up.save(folder / image, made_up.image_of(values, number))


def folder_of(path: Path, cache: Cache, **settings: Any) -> ImageFolder:
    how = {"labels": LABELS, "split": SameCases(), "preprocessing": AS_IN_FILES} | settings
    return ImageFolder(path=path, cache=cache, **how)


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("images/case_0001.nii.gz", "labels/case_0001.nii.gz", "case_0001"),
        ("images/case_0001_0000.nii.gz", "labels/case_0001.nii.gz", "case_0001"),
        ("images/a.nii.gz", "labels/a_seg.nii", "a"),
        ("images/a_image.nii", "labels/a-mask.nii.gz", "a"),
        ("images/site1/a.nii.gz", "labels/site1/a.nii.gz", "site1/a"),
        ("images/a/scan.nii.gz", "labels/a.nii.gz", "a"),
    ],
)
def test_files_that_are_called_alike_are_a_case(tmp_path, cache, image, label, name):
    saved(tmp_path / "data", image, label, 0)
    ((found, batch),) = volumes(folder_of(tmp_path / "data", cache)).items()
    assert found == name
    assert np.array_equal(batch["label"][0, 0], made_up.shells(0, 2))
    assert np.array_equal(batch["image"][0, 0], made_up.image_of(made_up.shells(0, 2), 0))


@pytest.mark.parametrize(("suffixes", "channels"), [(("0000", "0001"), None), (("T1", "flair"), ("t1", "flair"))])
def test_each_channel_may_have_a_file(tmp_path, cache, suffixes, channels):
    folder = tmp_path / "data"
    for number in range(2):
        saved(folder, f"images/p{number}_{suffixes[0]}.nii.gz", f"labels/p{number}.nii.gz", number)
        made_up.save(folder / f"images/p{number}_{suffixes[1]}.nii.gz", np.full(made_up.SIZE, number, np.float32))
    data = folder_of(folder, cache, channels=channels)
    found = volumes(data)
    assert list(found) == ["p0", "p1"]
    assert found["p1"]["image"].shape[1] == 2
    assert (found["p1"]["image"][0, 1] == 1).all()
    assert opened(data).facts()["channels"] == list(channels or ("channel_0", "channel_1"))


def test_a_folder_of_slices_is_an_image(tmp_path, cache):
    series(tmp_path / "data/images/anna")
    label = np.zeros(ARRAY.T.shape, np.uint8)
    label[1:3, 1:3] = 1
    label[4, 4] = 2
    affine = np.diag([-0.7, -1.3, 2.1, 1.0])
    affine[:3, 3] = (-3.0, 20.0, 7.5)
    made_up.save(tmp_path / "data/labels/anna.nii.gz", label, affine)
    ((name, batch),) = volumes(folder_of(tmp_path / "data", cache)).items()
    assert name == "anna"
    assert np.array_equal(batch["image"][0, 0], ARRAY.T)


def test_what_has_no_counterpart_is_told(tmp_path, cache):
    folder = tmp_path / "data"
    for number in range(2):
        saved(folder, f"images/p{number}.nii.gz", f"labels/p{number}.nii.gz", number)
    made_up.save(folder / "images/lost.nii.gz", made_up.shells(0, 2))
    data = folder_of(folder, cache)
    assert "warning: images without a label are left out: lost (lost.nii.gz)" in inspected(data)
    (folder / "images/p1.nii.gz").rename(folder / "images/p1_t1.nii.gz")
    told = refusal(data)
    assert "p1: there is a label, p1.nii.gz, but no image of this name; there is p1_t1.nii.gz" in told
    assert "data.labels = { class_1 = 1, class_2 = 2 }" in refusal(folder_of(folder, cache, labels=None))
    (folder / "labels").rename(folder / "masks")
    assert "there are the folders images, masks: set data.label_folder" in refusal(data)


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(folder: Path, rows: list[str], delimiter: str = ",") -> Path:
    for number in range(4):
        saved(folder, f"scans/{number}/flair.nii.gz", f"scans/{number}/seg.nii.gz", number)
    lines = ["who,flair,seg,fold,visit", *rows]
    (folder / "cases.csv").write_text("\n".join(lines).replace(",", delimiter), encoding="utf-8-sig")
    return folder / "cases.csv"


def row(number: int) -> str:
    return f"anna{number // 2},scans/{number}/flair.nii.gz,scans\\{number}\\seg.nii.gz,{number // 2},v{number}"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_rows_of_a_table_are_cases_with_their_names_persons_and_folds(tmp_path, cache, delimiter):
    path = table(tmp_path, [row(number) for number in range(4)], delimiter)
    columns = {"channels": ("flair",), "label": "seg", "case": "visit", "subject": "who", "fold": "fold"}
    data = ImageTable(path=path, **columns, labels=LABELS, cache=cache, split=Listed(fold=1), preprocessing=AS_IN_FILES)
    found = volumes(data)
    assert list(found) == ["v2", "v3"]
    assert np.array_equal(found["v3"]["label"][0, 0], made_up.shells(3, 2))
    assert {case.name: case.subject for case in data.cases().cases}["v1"] == "anna0"


def test_the_columns_of_a_table_are_recognised_by_their_names(tmp_path):
    path = table(tmp_path, [row(number) for number in range(4)], ";")
    found = ImageTable.recognise(path)
    assert found == {
        **{"path": path, "channels": ("flair",), "label": "seg", "labels": {"class_1": 1, "class_2": 2}},
        **{"case": "visit", "fold": "fold"},
    }
    assert list(ImageTable(**found).cases().folds.values()) == [0, 0, 1, 1]
    path.write_text(path.read_text(encoding="utf-8-sig").replace("who", "Patient").replace("seg;", "core_mask;"))
    assert ImageTable.recognise(path) == found | {"label": "core_mask", "subject": "Patient"}
    path.write_text("flair;mask_a;mask_b;id\n" + "\n".join(f"{3 * f'scans/{n}/seg.nii.gz;'}same" for n in range(2)))
    assert ImageTable.recognise(path) == {"path": path, "channels": ("flair",), "masks": ("mask_a", "mask_b")}


def test_a_table_whose_columns_say_nothing_is_not_guessed_at(tmp_path):
    path = table(tmp_path, [row(number) for number in range(4)])
    path.write_text(path.read_text(encoding="utf-8-sig").replace("seg,", "second,"))
    with pytest.raises(RecipeError, match=r"the columns of paths are flair, second, and their names do not tell"):
        recognised(path, None)
    path.write_text("epoch,loss\n1,0.5\n")
    assert ImageTable.recognise(path) is None
    assert ImageTable.recognise(tmp_path) is None


def test_without_a_column_of_names_cases_are_named_after_their_files(tmp_path, cache):
    path = table(tmp_path, [row(number) for number in range(3)])
    data = ImageTable(path=path, channels=("flair",), label="seg", labels=LABELS, cache=cache, split=SameCases())
    assert list(volumes(data)) == ["0", "1", "2"]


def test_the_files_of_a_single_column_may_have_several_channels(tmp_path, cache):
    path = table(tmp_path, [row(number) for number in range(2)])
    for number in range(2):
        made_up.save(tmp_path / f"scans/{number}/flair.nii.gz", np.ones((*made_up.SIZE, 3), np.float32))
    data = ImageTable(path=path, channels=("flair",), label="seg", labels=LABELS, cache=cache, split=SameCases())
    assert opened(data).facts()["channels"] == ["flair_0", "flair_1", "flair_2"]


def test_columns_of_masks_are_classes_that_may_overlap(tmp_path, cache):
    path = table(tmp_path, [])
    for number in range(2):
        values = made_up.shells(number, 2)
        made_up.save(tmp_path / f"scans/{number}/whole.nii.gz", (values > 0).astype(np.uint8))
        made_up.save(tmp_path / f"scans/{number}/core.nii.gz", (values == 2).astype(np.uint8))
    rows = [f"scans/{n}/flair.nii.gz,scans/{n}/whole.nii.gz,scans/{n}/core.nii.gz" for n in range(2)]
    path.write_text("\n".join(["flair,whole,core", *rows]))
    data = ImageTable(
        path=path,
        channels=("flair",),
        masks=("whole", "core"),
        cache=cache,
        split=SameCases(),
        preprocessing=AS_IN_FILES,
    )
    for number, batch in enumerate(volumes(data).values()):
        values = made_up.shells(number, 2)
        assert np.array_equal(batch["label"][0], np.stack([values > 0, values == 2]))


@pytest.mark.parametrize(
    ("settings", "rows", "told"),
    [
        ({"channels": ("flaire",)}, [row(0)], 'there is no column "flaire" (data.channels); did you mean "flair"'),
        ({}, [], "there are no rows"),
        ({}, [row(0), "x,scans/9/flair.nii.gz,scans/1/seg.nii.gz,0,v9"], "flair.nii.gz (row 3 of cases.csv)"),
        ({}, [row(0), "x,,scans/1/seg.nii.gz,0,v9"], "row 3 of cases.csv: no flair is given"),
        ({"labels": None}, [row(0)], "data.labels = { class_1 = 1, class_2 = 2 }"),
    ],
)
def test_a_table_that_lacks_something_is_told_where(tmp_path, cache, settings, rows, told):
    how = {"channels": ("flair",), "label": "seg", "labels": LABELS} | settings
    assert told in refusal(ImageTable(path=table(tmp_path, rows), cache=cache, split=SameCases(), **how))
