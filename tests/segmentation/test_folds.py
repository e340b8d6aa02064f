"""A cross-validation of masks: every case is held out once, and the ensemble predicts as its held-out cases suggest."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from clients.segmentation_cases import msd
from scipy.ndimage import gaussian_filter

from trainkit import DataError
from trainkit.cli.evaluate import command as evaluate
from trainkit.cli.predict import command as predict
from trainkit.cli.run import command as run
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.evaluation.post_processing import CANDIDATES, held_out_mask
from trainkit_segmentation.prediction.cleaning_live import unlikely_parts
from trainkit_segmentation.splits.file import SplitFile
from trainkit_segmentation.splits.folds import Folds
from trainkit_segmentation.splits.listed import Listed

RECIPE = """
trainkit = 1
[run]
name = "cross"
epochs = 4
threads = 1
device = "cpu"
[monitor]
metric = "val/dice"
mode = "max"
[data]
use = "msd"
path = "task"
patch_size = [16, 16, 16]
steps_per_epoch = 4
split = { use = "fraction", seed = 3 }
[model]
use = "unet"
channels = [4, 8]
[losses.overlap]
use = "dice_ce"
[metrics.dice]
use = "dice"
[inference]
use = "sliding_window"
[optimizer]
use = "adam"
lr = 0.01
"""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cross-validation with two folds of four cases."""
    folder = tmp_path_factory.mktemp("cross")
    msd(folder / "task", cases=4)
    (folder / "r.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(run, ["r.toml", "--folds", "2"])
    assert result.exit_code == 0, result.output
    return folder / "runs" / "cross_2folds"


@pytest.mark.slow
def test_every_case_is_held_out_once_and_its_scores_are_those_of_its_fold(ensemble: Path) -> None:
    members = [ensemble / each for each in json.loads((ensemble / "ensemble.json").read_text())["members"]]
    held_out = [json.loads((each / "splits.json").read_text()) for each in members]
    assert sorted(case for [split] in held_out for case in split["val"]) == [f"case_{n:03d}" for n in range(4)]
    assert all(not set(split["val"]) & set(split["train"]) for [split] in held_out)
    folds = Folds(folds=2, fold=0, seed=3).divide({f"case_{n:03d}": f"case_{n:03d}" for n in range(4)})
    assert held_out[0] == [folds]
    together = {(row["case"], row["class"]): row for row in rows(ensemble / "cases.csv")}
    assert len(together) == 8
    for member in members:
        values = [json.loads(line)["val/dice"] for line in (member / "metrics.jsonl").read_text().splitlines()]
        for file, value in (("cases.csv", values[-1]), ("cases_best.csv", max(values))):
            of_run = rows(member / file)
            assert {(row["case"], row["class"]) for row in of_run} <= together.keys()
            assert np.mean([float(row["dice"]) for row in of_run]) == pytest.approx(value)
            assert values[int(of_run[0]["epochs"]) - 1] == value
        for row in of_run:  # the best checkpoint is the one that the fold predicts with
            other = together[row["case"], row["class"]]
            for column in ("dice", "true_ml", "predicted_ml"):
                assert float(row[column]) == pytest.approx(float(other[column]))


@pytest.mark.slow
def test_predict_and_evaluate_take_the_folder_by_its_name(ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ensemble.parents[1])
    content = json.loads((ensemble / "ensemble.json").read_text())
    content.pop("post_processing", None)
    masks = []
    for name, more in (("plain", {}), ("cleaned", {"post_processing": {"Anterior": {"smallest_ml": 1e6}}})):
        folder = Path("runs", name)
        folder.mkdir()
        members = [f"../cross_2folds/{each}" for each in content["members"]]
        (folder / "ensemble.json").write_text(json.dumps({"members": members, **more}))
        result = CliRunner().invoke(predict, [name, "task/imagesTr/case_000.nii.gz", "--out", f"{name}_out"])
        assert result.exit_code == 0, result.output
        masks.append(np.asarray(nibabel.load(f"{name}_out/case_000.nii.gz").dataobj))
    assert (masks[0] == 1).any()
    assert np.array_equal(masks[1], np.where(masks[0] == 1, 0, masks[0]))
    result = CliRunner().invoke(evaluate, ["plain_out", "task/labelsTr", "--run", "cross_2folds", "--only-predicted"])
    assert result.exit_code == 0, result.output
    assert "Anterior (1), Posterior (2)" in result.output


def test_what_is_removed_is_what_the_choice_was_made_for() -> None:
    rng = np.random.default_rng(0)
    found, true = (gaussian_filter(rng.normal(size=(16, 18, 14)), 1.2) > 0.12 for _ in range(2))
    for removal in CANDIDATES:
        kept = found & ~unlikely_parts(found, removal, 0.004)
        both, sizes = (kept & true).sum(), kept.sum() + true.sum()
        assert held_out_mask(found, true, 0.004).dice(removal) == pytest.approx(2 * both / sizes)


def test_folds_of_a_file_or_a_list_must_be_as_many(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]))
    split = SplitFile(path=path)
    assert split.settings_of_fold(1, 2, dict) == {"fold": 1}
    with pytest.raises(DataError, match="has 2 folds, not 5"):
        split.settings_of_fold(1, 5, dict)
    listed: Any = {"a": 0, "b": 1, "c": "1", "d": "train"}
    assert Listed().settings_of_fold(1, 2, lambda: listed) == {"fold": 1}
    with pytest.raises(DataError, match="has the folds 0, 1, not 5"):
        Listed().settings_of_fold(1, 5, lambda: listed)
    data = MSD(path=tmp_path, split=Folds(seed=4))
    assert data.settings_of_fold(2, 3) == {"split": {"use": "folds", "folds": 3, "fold": 2, "seed": 4}}
