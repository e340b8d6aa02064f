"""A whole segmentation run: what it computes, shows, says, refuses, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from same import differences
from torch import Tensor

from trainkit import Batch, DataError, Problem, RecipeError, read_checkpoint
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import ExitCode, RunOutcome, start
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.hooks.overlays import Overlays
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.losses.kind import SegmentationLoss
from trainkit_segmentation.metrics.kind import SegmentationMetric
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.preparing.cache import Cache

RECIPE = """
trainkit = 1
[run]
name = "volumes"
epochs = 2
device = "cpu"
threads = 1
[monitor]
metric = "val/dice"
mode = "max"
[data]
use = "clients.volumes:Volumes"
exclusive = {exclusive}
[model]
use = "{model}"
channels = [4, 8, 8]
{settings}
[losses.overlap]
use = "dice_ce"
[losses.focal]
use = "focal"
weight = 0.5
[metrics.dice]
use = "dice"
[metrics.far]
use = "hd95"
every_epochs = 2
[inference]
use = "sliding_window"
[optimizer]
use = "adam"
lr = 0.01
[hooks.overlays]
use = "segmentation_overlays"
{hook}
[loggers.tensorboard]
use = "tensorboard"
"""


def run(
    folder: Path, model: str = "unet", settings: str = "", hook: str = "", *, exclusive: bool = True, name: str = "runs"
) -> RunOutcome:
    text = RECIPE.format(model=model, settings=settings, hook=hook, exclusive=str(exclusive).lower())
    return start(resolve_text(text, folder, (f"run.dir={folder / name}",)), Console(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize(("model", "settings"), [("unet", ""), ("dynunet", "deep_supervision = 1")])
def test_it_learns_and_tells_each_class(tmp_path: Path, model: str, settings: str, exclusive: bool) -> None:
    ending = run(tmp_path, model, settings, exclusive=exclusive)
    assert ending.code is ExitCode.FINISHED
    folder = ending.run.state.folder
    first, second = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert second["train/loss"] < first["train/loss"]
    assert {"val/loss", "val/overlap", "val/focal", "val/dice", "val/dice_shell", "val/dice_ball_of_fat"} <= set(first)
    assert "val/hd95" not in first
    assert "val/hd95_shell" in second
    image = np.asarray(Image.open(folder / "figures" / "overlay-0002.png"))
    assert image.shape[2] == 3
    assert np.unique(image.reshape(-1, 3), axis=0).shape[0] > 100
    log = (folder / "log.txt").read_text()
    assert "val/dice" in log


@pytest.mark.slow
@pytest.mark.parametrize("batch_dice", [True, False])
def test_two_batches_of_one_patch_train_as_one_batch_of_two(tmp_path: Path, batch_dice: bool) -> None:
    recipe = f"""
trainkit = 1
[run]
name = "sums"
epochs = 2
device = "cpu"
threads = 1
[data]
use = "segmentation_synthetic"
num_cases = 8
size = [20, 20, 20]
patch_size = [16, 16, 16]
cache = {{ folder = "{tmp_path / "cache"}" }}
[model]
use = "dynunet"
channels = [4, 8, 8, 8]
deep_supervision = 1
[losses.overlap]
use = "dice_ce"
batch_dice = {str(batch_dice).lower()}
[inference]
use = "sliding_window"
[optimizer]
use = "sgd"
lr = 0.1
"""
    found = []
    for size, accumulate in ((2, 1), (1, 2)):
        sets = (f"run.dir={tmp_path / str(size)}", f"data.batch_size={size}", f"run.accumulate={accumulate}")
        state = start(resolve_text(recipe, tmp_path, sets), Console(quiet=True)).run.state
        assert state.step == 6, "two epochs of six cases"
        found.append((state.metrics["train/loss"], state.metrics["val/loss"], state.model.state_dict()))
    (one_train, one_val, one), (two_train, two_val, two) = found
    assert two_train == pytest.approx(one_train, rel=1e-5)
    assert two_val == pytest.approx(one_val, rel=1e-5)
    assert all(torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5) for name in one)


class Everywhere(torch.nn.Module):
    """Scores that are the image itself, and the sizes of the patches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, ...]] = set()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.sizes.add(tuple(batch["image"].shape[2:]))
        return {"logits": batch["image"].repeat(1, 2, 1, 1, 1)}


@pytest.mark.parametrize("size", [(8, 8, 8), (13, 20, 9), (5, 20, 8)])
@pytest.mark.parametrize("settings", [SlidingWindow(), SlidingWindow(blending="constant", overlap=0.0)])
def test_windows_of_the_patch_size_cover_a_volume_of_any_size(size: tuple[int, ...], settings: SlidingWindow) -> None:
    data: Any = SimpleNamespace(patch_size=(8, 8, 8))
    model, image = Everywhere(), torch.randn(1, 1, *size)
    outputs = settings.build(data)(model, {"image": image})
    assert torch.allclose(outputs["logits"], image.repeat(1, 2, 1, 1, 1), atol=1e-5)
    assert model.sizes == {(8, 8, 8)}
    SlidingWindow(window_size=(4, 8, 4)).build(data)(other := Everywhere(), {"image": image})
    assert other.sizes == {(4, 8, 4)}


def test_windows_with_more_padding_than_patches_are_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data: Any = SimpleNamespace(patch_size=(8, 8, 8))
    windows = SlidingWindow(window_size=(12, 8, 8))
    for size in ((12, 5, 5), (16, 5, 8)):  # smaller than windows only where patches are padded alike
        windows.build(data)(Everywhere(), {"image": torch.randn(1, 1, *size)})
    assert not caplog.messages
    infer = windows.build(data)
    for size in ((11, 8, 8), (10, 8, 8)):
        infer(Everywhere(), {"image": torch.randn(1, 1, *size)})
    (told,) = caplog.messages
    assert "windows of 12 × 8 × 8 are larger than the volume of 11 × 8 × 8 voxels" in told

    made_up = SyntheticSegmentation(num_cases=3, size=(11, 8, 8), patch_size=(8, 8, 8), cache=Cache(folder=tmp_path))
    recipe: Any = SimpleNamespace(data=made_up)
    (doubt,) = windows.inspect(recipe, "headers")
    assert isinstance(doubt, Problem)
    assert "and 2 others" in doubt.message
    assert list(SlidingWindow(window_size=(10, 8, 8)).inspect(recipe, "headers")) == []
    assert list(SlidingWindow().inspect(recipe, "headers")) == []


@pytest.mark.slow
def test_a_case_that_is_not_held_out_cannot_be_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "trainkit"):  # pictures never end a run
        run(tmp_path, hook='cases = ["val_7", "val_1"]')
    (told,) = (message for message in caplog.messages if "no held-out case" in message)
    assert 'there is no held-out case "val_7"; there are 2 others' in told
    ending = run(tmp_path, hook='cases = ["val_0", "val_1"]')
    shown = {path.name for path in (ending.run.state.folder / "figures").iterdir()}
    assert shown == {"overlay-0002.png"}
    with pytest.raises(DataError, match=r"channel = 1, but the images have 1"):
        run(tmp_path, hook="channel = 1")


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_trained_network_is_rebuilt_from_its_checkpoint_and_the_facts_of_its_data(
    tmp_path: Path, exclusive: bool
) -> None:
    ending = run(tmp_path, exclusive=exclusive)
    state = ending.run.state
    data: Any = state.data
    assert ending.newest is not None
    checkpoint = read_checkpoint(ending.newest)
    facts = checkpoint["facts"]
    assert facts == json.loads(json.dumps(data.facts()))
    recipe = resolve_text(RECIPE.format(model="unet", settings="", hook="", exclusive=str(exclusive).lower()), tmp_path)
    stand_in = recipe.recipe.data.recall(facts)
    rebuilt: Any = recipe.recipe.model.build(stand_in)
    rebuilt.load_state_dict(checkpoint["model"])
    infer = recipe.recipe.inference.build(stand_in)
    (batch, _) = data.evaluate("val")
    with torch.no_grad():
        expected = ending.run.inference(state.model.eval(), batch)["logits"]
        assert torch.equal(infer(rebuilt.eval(), batch)["logits"], expected)


# ---- what it begins with, and goes on with --------------------------------------------------------------------------


@pytest.mark.slow
def test_initial_weights_are_loaded_once_and_a_resumed_run_needs_their_file_no_more(tmp_path: Path) -> None:
    before = run(tmp_path)
    weights = tmp_path / "weights.safetensors"
    assert before.newest is not None
    weights.write_bytes(before.newest.read_bytes())
    trained = before.run.state.metrics["val/dice"]

    straight = run(tmp_path, settings=f'[initial_weights]\npath = "{weights}"', name="more")
    folder = straight.run.state.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["train/loss"] < before.run.state.metrics["train/loss"] * 1.2
    assert lines[-1]["val/dice"] > 0.5 * trained
    assert f"weights were loaded from {weights}" in (folder / "log.txt").read_text()

    weights.unlink()
    ending = resume(folder, Console(quiet=True), epoch=1, allow_code=True)
    assert ending is not None
    assert straight.newest is not None
    assert ending.newest is not None
    one, other = (read_checkpoint(path) for path in (straight.newest, ending.newest))
    assert not differences(one["model"], other["model"])
    assert one["metrics"] == other["metrics"]


@pytest.mark.slow
def test_classes_that_may_overlap_begin_anew_where_they_exclude_each_other(tmp_path: Path) -> None:
    newest = run(tmp_path, exclusive=False).newest
    ending = run(tmp_path, settings=f'[initial_weights]\npath = "{newest}"')
    log = (ending.run.state.folder / "log.txt").read_text()
    assert "all classes begin anew: those of the file may overlap, those of this run exclude each other" in log


# ---- what check finds -----------------------------------------------------------------------------------------------


def mistakes(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        resolve_text(text, Path.cwd())
    return str(caught.value)


GOOD = RECIPE.format(model="unet", settings="", hook="", exclusive="true")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (GOOD.replace('"val/dice"', '"val/dcie"'), 'did you mean "val/dice"'),
        (GOOD.replace("overlap]\nuse", "overlap]\ndeep_supervision_weights = [0.0]\nuse", 1), "not all 0, got [0.0]"),
        (GOOD.replace('"sliding_window"', '"sliding_window"\nwindow_size = [12, 18, 12]'), "12 × 20 × 12 does"),
        (GOOD.replace("exclusive = true", "patch_size = [16, 16, 18]"), "set data.patch_size"),
    ],
)
def test_check_finds_what_does_not_fit(wrong: str, said: str) -> None:
    assert said in mistakes(wrong)


def test_a_class_may_be_watched_whose_name_only_the_data_knows() -> None:
    resolve_text(GOOD.replace('"val/dice"', '"val/dice_ball_of_fat"'), Path.cwd())


def test_every_part_for_volumes_accepts_segmentation_data_alone() -> None:
    parts = (SegmentationModel, SegmentationLoss, SegmentationMetric, SlidingWindow, Overlays)
    assert {part.accepts for part in parts} == {SegmentationData}
