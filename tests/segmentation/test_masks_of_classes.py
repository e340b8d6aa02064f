"""Masks of single classes, as files or channels: regions, ignored voxels, and masks that a case does not have."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from clients import segmentation_cases as made_up
from clients.opened_data import AS_IN_FILES, opened
from inspected import inspected, refusal

from trainkit import DataError
from trainkit.cli.evaluate import command
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.image_table import ImageTable
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.totalsegmentator import TotalSegmentator
from trainkit_segmentation.evaluation.meaning import meaning_of_values
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.metrics.dice import Dice
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.same_cases import SameCases

NAMES = ("inner", "middle", "outer", "unsure")
CASES = 2


def masks_of(number: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return masks of a case: the first three exclude each other, the last one goes through all of them."""
    values = made_up.shells(number, 3)
    unsure = np.zeros_like(values)
    unsure[:, :, ::4] = 1
    return {name: values == k for k, name in enumerate(NAMES[:3], start=1)} | {"unsure": unsure == 1}


def as_files(folder: Path) -> None:
    """Write the masks as TotalSegmentator does, and a table of them."""
    rows = []
    for number in range(CASES):
        subject = folder / f"s{number}"
        made_up.save(subject / "ct.nii.gz", made_up.image_of(made_up.shells(number, 3), number))
        for name, mask in masks_of(number).items():
            made_up.save(subject / "segmentations" / f"{name}.nii.gz", mask.astype(np.uint8))
        paths = [f"s{number}/ct.nii.gz", *(f"s{number}/segmentations/{name}.nii.gz" for name in NAMES)]
        rows.append(",".join([f"s{number}", *paths]))
    (folder / "table.csv").write_text("\n".join([",".join(["case", "image", *NAMES]), *rows]) + "\n")


def as_channels(folder: Path, ignored: str = "unsure") -> None:
    """Write a folder of nnU-Net whose labels have a channel for each mask."""
    for number in range(CASES):
        made_up.save(
            folder / "imagesTr" / f"s{number}_0000.nii.gz", made_up.image_of(made_up.shells(number, 3), number)
        )
        stacked = np.stack(list(masks_of(number).values()), axis=-1)
        made_up.save(folder / "labelsTr" / f"s{number}.nii.gz", stacked.astype(np.uint8))
    labels = {"background": 0, "inner": 1, "middle": 2, "outer": 3, ignored: 4}
    about = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("masks")
    as_files(made / "files")
    as_channels(made / "channels")
    return made


def data_of(form: str, folder: Path, **settings: Any) -> SegmentationData:
    """Return the same masks in one of their forms."""
    shared: dict[str, Any] = {
        "cache": Cache(folder=folder / "cache"),
        "split": SameCases(),
        "preprocessing": AS_IN_FILES,
        "patch_size": (16, 16, 8),
    }
    if form == "channels":
        return MSD(path=folder / "channels", **shared | settings)
    if form == "table":
        return ImageTable(path=folder / "files" / "table.csv", masks=NAMES, case="case", **shared | settings)
    return TotalSegmentator(path=folder / "files", structures=NAMES, **shared | settings)


FORMS = ("files", "table", "channels")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "settings",
    [
        {"regions": {"all": (1, 2, 3), "core": (1,), "rim": (2, 3)}, "ignored_values": (4,)},
        {"regions": {"all": ("inner", "middle", 3), "core": ("inner",), "rim": (2, "outer")}},
    ],
)
def test_regions_are_unions_of_masks_and_one_mask_can_say_what_is_ignored(
    form: str, settings: dict[str, Any], folder: Path
) -> None:
    live = opened(data_of(form, folder, **{"ignored_values": ("unsure",)} | settings))
    assert (live.classes, live.exclusive) == (("all", "core", "rim"), False)
    for number, batch in enumerate(live.evaluate("val")):
        values, ignored = made_up.shells(number, 3), masks_of(number)["unsure"]
        expected = np.stack([values > 0, values == 1, values > 1]) & ~ignored
        assert np.array_equal(batch["label"][0], expected)
        assert np.array_equal(batch["ignored"][0, 0], ignored)
        assert np.array_equal(live.truth(batch["case"]), expected)
    for batch in live.train(0, 0):
        assert not (batch["label"] * batch["ignored"]).any()
        assert batch["ignored"].any()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_found_or_drawn_in_ignored_voxels_of_a_mask_counts_nowhere(form: str, folder: Path) -> None:
    live = opened(data_of(form, folder, ignored_values=("unsure",), foreground_probability=1.0, patch_size=(1, 1, 1)))
    assert live.classes == NAMES[:3]
    for epoch in range(6):
        for batch in live.train(epoch, 0):
            assert not batch["ignored"].any()  # patches of one voxel are those of classes
    batch = next(iter(live.evaluate("val")))
    ignored_B1XYZ = batch["ignored"]
    scores, losses, loss = [], [], DiceCE().build(live)
    for seed in range(2):
        logits = torch.randn((1, 4 if live.exclusive else 3, *made_up.SIZE), generator=torch.Generator().manual_seed(1))
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        outputs = {"logits": torch.where(ignored_B1XYZ, noise, logits)}
        metric = Dice().build(live)
        metric.update(outputs, batch)
        scores.append(metric.compute())
        losses.append(float(loss(outputs, batch, torch.nn.Identity())))
    assert scores[0] == scores[1]
    assert losses[0] == losses[1]


def test_a_mask_called_ignore_is_ignored_and_does_not_overlap_with_what_it_covers(tmp_path: Path) -> None:
    as_files(tmp_path / "files")
    for path in tmp_path.glob("files/*/segmentations/unsure.nii.gz"):
        path.rename(path.with_name("ignore.nii.gz"))
    as_channels(tmp_path / "channels", ignored="ignore")
    files = attrs.evolve(data_of("files", tmp_path), structures=(*NAMES[:3], "ignore"))
    for data in (files, data_of("channels", tmp_path)):
        live = opened(data)
        assert (live.classes, live.exclusive) == (NAMES[:3], data is files)
        assert np.array_equal(live.ignored("s0"), masks_of(0)["unsure"])
    assert any(line.startswith("ignored: ") for line in inspected(files))
    (tmp_path / "files/s1/segmentations/ignore.nii.gz").unlink()
    assert "nothing is ignored where there is no mask that says so: ignore in 1 of 2 cases" in inspected(files)
    assert opened(files).ignored("s1") is None
    (tmp_path / "files/s0/segmentations/ignore.nii.gz").unlink()
    assert "the mask ignore, which says what to ignore, is in no case" in refusal(files)


def test_settings_that_name_no_mask_or_a_class_are_refused(folder: Path) -> None:
    def refused(**settings: Any) -> str:
        with pytest.raises(DataError) as caught:
            data_of("files", folder, **settings).cases()
        return str(caught.value)

    assert "no mask 5, only 1 (inner), 2 (middle), 3 (outer), 4 (unsure)" in refused(regions={"a": (1, 5)})
    assert 'there is no class "iner"; did you mean "inner"' in refused(regions={"a": ("iner",)})
    assert "a and b are two names for the masks 1 (inner), 2 (middle)" in refused(
        regions={"a": (1, 2), "b": ("middle", "inner")}
    )
    assert 'data.ignored_values = ["unsure"]' in refused(regions={"ignore": ("unsure",)})
    assert "has no mask 9" in refused(ignored_values=(9,))
    assert "the mask 4 is unsure: to ignore its voxels, train without it" in refused(ignored_values=(4,))
    belongs = "the mask 4 belongs to all: to ignore its voxels, take it out of data.regions.all"
    assert belongs in refused(regions={"all": (1, 4)}, ignored_values=("unsure",))
    assert "none is left to train" in refused(ignored_values=NAMES)


# ---- masks that a case does not have --------------------------------------------------------------------------------


@pytest.fixture
def incomplete(tmp_path: Path) -> Path:
    """The second case lacks a mask."""
    as_files(tmp_path / "files")
    (tmp_path / "files/s1/segmentations/middle.nii.gz").unlink()
    table = tmp_path / "files/table.csv"
    table.write_text(table.read_text().replace("s1/segmentations/middle.nii.gz", ""))
    return tmp_path


@pytest.mark.parametrize("form", ["files", "table"])
def test_a_missing_mask_is_refused_until_a_setting_says_what_it_means(form: str, incomplete: Path) -> None:
    def data(**settings: Any) -> SegmentationData:
        regions = {"core": ("inner",), "rim": ("middle", "outer")}
        return data_of(form, incomplete, ignored_values=("unsure",), regions=regions, **settings)

    assert 'data.missing_masks = "not_annotated"' in refusal(data())
    assert opened(attrs.evolve(data(), regions={"core": ("inner",)})).classes == ("core",)  # which needs it not
    unknown = data(missing_masks="not_annotated")
    assert "masks without a file count as not annotated: middle in 1 of 2 cases" in inspected(unknown)
    for known in (unknown, data(annotated={"s1": ("core",)})):
        batches = {batch["case"]: batch for batch in opened(known).evaluate("val")}
        assert batches["s0"]["annotated"].tolist() == [[True, True]]
        assert batches["s1"]["annotated"].tolist() == [[True, False]]
        assert not batches["s1"]["label"][0, 1].any()  # a part of a class that is not known is not the class
        assert batches["s1"]["label"][0, 0].any()
    empty = data(missing_masks="empty")
    assert "masks without a file count as empty: middle in 1 of 2 cases" in inspected(empty)
    (_, second) = opened(empty).evaluate("val")
    values, ignored = made_up.shells(1, 3), masks_of(1)["unsure"]
    assert "annotated" not in second
    assert np.array_equal(second["label"][0, 1], (values == 3) & ~ignored)


def test_a_case_without_any_mask_is_empty_or_left_out(tmp_path: Path) -> None:
    as_files(tmp_path / "files")
    table = tmp_path / "files/table.csv"
    first, second, _ = table.read_text().splitlines()
    table.write_text("\n".join([first, second, "s1,s1/ct.nii.gz,,,,"]))
    empty = data_of("table", tmp_path, missing_masks="empty")
    assert not opened(empty).truth("s1").any()
    assert "no class is known there" in refusal(attrs.evolve(empty, missing_masks="not_annotated"))


def test_masks_that_should_say_what_to_ignore_but_are_empty_are_said(tmp_path: Path) -> None:
    as_files(tmp_path / "files")
    for path in (tmp_path / "files").glob("*/segmentations/unsure.nii.gz"):
        made_up.save(path, np.zeros(made_up.SIZE, np.uint8))
        made_up.save(path.with_name("ignore.nii.gz"), np.zeros(made_up.SIZE, np.uint8))
    said = inspected(data_of("files", tmp_path, ignored_values=("unsure",)))
    doubt = "data.ignored_values names unsure, but no case has such a voxel, so nothing is ignored"
    assert f"warning: {doubt}" in said
    of_the_data_set = attrs.evolve(data_of("files", tmp_path), structures=(*NAMES[:3], "ignore"))
    said = inspected(of_the_data_set)
    assert "ignored: no voxel of any case, although ignore says what to ignore" in said
    assert not [line for line in said if line.startswith("warning") and "ignore" in line]


# ---- evaluation -----------------------------------------------------------------------------------------------------


def as_predicted(folder: Path, number: int, classes: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, mask in classes.items():
        made_up.save(folder / f"s{number}" / f"{name}.nii.gz", mask.astype(np.uint8))


@pytest.mark.parametrize("form", ["files", "channels"])
def test_evaluate_compares_regions_of_masks_where_they_count(form: str, folder: Path, tmp_path: Path) -> None:
    for number in range(CASES):
        masks, garbage = masks_of(number), masks_of(number)["unsure"]
        as_predicted(tmp_path / "found", number, {"core": masks["inner"] | garbage, "rim": masks["outer"] | garbage})
    recipe = tmp_path / "recipe.toml"
    data = {
        "files": f'use = "totalsegmentator"\npath = "{folder}/files"\nstructures = {json.dumps(NAMES)}',
        "channels": f'use = "msd"\npath = "{folder}/channels"',
    }[form]
    recipe.write_text(
        f'trainkit = 1\n[data]\n{data}\nignored_values = ["unsure"]\n'
        'regions = { core = ["inner"], rim = ["middle", "outer"] }\n'
        '[model]\nuse = "unet"\n[losses.a]\nuse = "dice_ce"\n'
        '[optimizer]\nuse = "adam"\n[run]\nepochs = 1\n'
    )
    truth = folder / form
    by_names = "core=inner, rim=middle+outer, ignore=unsure"
    for options in [("--recipe", str(recipe)), ("--classes", by_names)][: 2 if form == "files" else 1]:
        result = CliRunner().invoke(command, [str(tmp_path / "found"), str(truth), *options])
        assert result.exit_code == 0, (result.output, result.exception)
        with (tmp_path / "found" / "cases.csv").open() as file:
            scores = {(row["case"], row["class"]): float(row["dice"]) for row in csv.DictReader(file)}
        for number in range(CASES):
            masks = {name: mask & ~masks_of(number)["unsure"] for name, mask in masks_of(number).items()}
            found, true = masks["outer"].sum(), (masks["middle"] | masks["outer"]).sum()
            assert scores[f"s{number}", "core"] == 1
            assert scores[f"s{number}", "rim"] == pytest.approx(2 * found / (found + true))


def test_evaluate_refuses_channels_of_classes_where_it_would_read_channels_of_masks(
    folder: Path, tmp_path: Path
) -> None:
    masks = masks_of(0)
    rim = masks["middle"] | masks["outer"]
    nested = [masks["inner"] | rim, rim, masks["outer"], masks["unsure"]]
    regions = {"all": ("inner", "middle", "outer"), "rim": ("middle", "outer"), "crust": ("outer",)}
    for name, channels in (("nested", nested), ("as_labels", list(masks.values()))):
        made_up.save(tmp_path / name / "s0.nii.gz", np.stack(channels, axis=-1).astype(np.uint8))
        for more in ({"unsure": ("unsure",)}, {}):  # without which there are fewer classes than masks
            facts = opened(data_of("channels", folder, regions=regions | more)).facts()
            evaluator = data_evaluator(SegmentationFacts.from_json(json.loads(json.dumps(facts))))
            failed = evaluator.evaluate(tmp_path / name, folder / "channels").failed
            refused = "its channels lie within each other as all, rim, crust" in str(failed.get("s0"))
            assert refused == (name == "nested" and bool(more)), failed


def test_evaluate_says_where_no_mask_says_what_to_ignore(folder: Path, tmp_path: Path) -> None:
    for number in range(CASES):
        as_predicted(tmp_path / "found", number, {"inner": masks_of(number)["inner"]})
    shutil.copytree(folder / "files", tmp_path / "true")
    (tmp_path / "true/s0/segmentations/unsure.nii.gz").unlink()

    def said(ignored: str) -> str:
        options = ["--classes", f"inner, ignore={ignored}"]
        return CliRunner().invoke(command, [str(tmp_path / "found"), str(tmp_path / "true"), *options]).output

    lacking = "nothing is ignored where there is no mask that says so: "
    assert f"\n{lacking}unsure in 1 of 2 cases" in said("unsure")
    assert f"warning: {lacking}unsuer in 2 of 2 cases" in said("unsuer")


def test_evaluate_leaves_out_what_was_not_annotated(incomplete: Path, tmp_path: Path) -> None:
    for number in range(CASES):
        masks = masks_of(number)
        as_predicted(tmp_path / "found", number, {name: masks[name] for name in NAMES[:3]})
    data = data_of("files", incomplete, ignored_values=("unsure",), missing_masks="not_annotated")
    facts = SegmentationFacts.from_json(json.loads(json.dumps(opened(data).facts())))
    assert facts.missing_masks == "not_annotated"
    evaluator = data_evaluator(facts)
    found = evaluator.evaluate(tmp_path / "found", incomplete / "files")
    assert {(row["case"], row["class"]) for row in found.rows} == {
        ("s0", "inner"),
        ("s0", "middle"),
        ("s0", "outer"),
        ("s1", "inner"),
        ("s1", "outer"),
    }
    assert all(row["dice"] == 1 for row in found.rows)
    assert any("were not annotated have no score; number of such cases: middle in 1" in line for line in found.lines)


def data_evaluator(facts: SegmentationFacts) -> Any:
    from trainkit_segmentation.evaluation.segmentation import SegmentationEvaluator

    return SegmentationEvaluator().build(None, facts.to_json(), Path(), lambda progress: None)


def test_facts_of_plain_masks_are_those_of_before_and_others_come_back(folder: Path) -> None:
    plain = opened(attrs.evolve(data_of("files", folder), structures=NAMES[:3])).facts()
    assert not {"masks", "missing_masks", "annotated"} & plain.keys()
    assert plain["label_values"] == {}
    data = data_of("channels", folder, ignored_values=("unsure",), regions={"rim": (2, 3)}, annotated={"s1": ("rim",)})
    facts = SegmentationFacts.from_json(json.loads(json.dumps(opened(data).facts())))
    assert dict(facts.masks) == {"inner": (), "middle": ("rim",), "outer": ("rim",), "unsure": ("ignore",)}
    meaning = meaning_of_values(None, None, facts.to_json(), folder)
    assert meaning.channels == NAMES
    assert (dict(meaning.masks), meaning.ignored_masks) == ({"rim": ("middle", "outer")}, ("unsure",))
    asked = [("s0", "core"), ("s1", "core"), ("s1", "rim")]
    assert [meaning.was_annotated(*each) for each in asked] == [True, False, True]
    assert meaning == attrs.evolve(meaning_of_values(None, data, None, folder), source="the checkpoint")
