"""What check says about memory is what training and validation take, counted without taking it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from clients.opened_data import opened

from trainkit import Problem, bytes_in_words
from trainkit.engine.average import WeightAverage
from trainkit.engine.devices import autocast_of
from trainkit.optimizers.adam import Adam
from trainkit.optimizers.sgd import SGD
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.metrics.dice import Dice
from trainkit_segmentation.models import memory
from trainkit_segmentation.models.footprint import footprint, validation_bytes
from trainkit_segmentation.models.peak_memory import PeakMemory
from trainkit_segmentation.models.unet import UNet
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.grid import Grid
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases

PATCH = (32, 32, 32)
replaced = attrs.evolve
RECIPE = """
trainkit = 1
[run]
epochs = 1
device = "{device}"
[data]
use = "msd"
path = "{path}"
patch_size = [16, 16, 16]
split = {{ use = "same_cases" }}
cache = {{ folder = "{path}/cache" }}
[model]
use = "unet"
channels = [4, 8]
[losses.overlap]
use = "dice_ce"
[metrics.dice]
use = "dice"
"""


@pytest.fixture
def task(tmp_path):
    return made_up.msd(tmp_path / "task", cases=2, size=(48, 40, 36))


def test_all_tensors_are_counted_for_as_long_as_they_live():
    with PeakMemory() as memory:
        one = torch.zeros(1000)
        two = one + 1
        view = two[10:]
        del one, two
        assert memory.now == 4000
        view.add_(1)
        del view
    assert (memory.now, memory.peak) == (0, 8000)


@pytest.mark.parametrize(
    ("optimizer", "precision"), [(Adam(), "fp32"), (SGD(), "fp32"), (SGD(momentum=0.9), "bf16"), (SGD(), "fp16")]
)
def test_a_step_without_values_takes_what_a_step_takes(task, tmp_path, optimizer, precision):
    data = MSD(path=task, cache=Cache(folder=tmp_path / "cache"), split=SameCases(), patch_size=PATCH)
    live = opened(data)
    model = UNet(channels=(8, 16, 32)).build(live)
    loss = DiceCE().build(live)
    made = optimizer.build([{"name": "all", "params": list(model.parameters()), "lr": 0.1}])
    batch = next(live.train(0, 0))
    with PeakMemory() as step:
        own = {key: value.clone() for key, value in batch.items()}
        with autocast_of(precision, torch.device("cpu"))():
            outputs = model(own)
            value = loss(outputs, own, model)
        value.backward()
    made.step()
    state = sum(
        each.numel() * each.element_size()
        for of_one in made.state.values()
        for each in of_one.values()
        if isinstance(each, torch.Tensor) and each.ndim
    )
    size = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
    found = footprint(
        UNet(channels=(8, 16, 32)).network(1, 3, PATCH),
        1,
        2,
        True,
        PATCH,
        data.batch_size,
        {"loss": loss},
        optimizer,
        precision,
    )
    assert found.network == size
    assert found.optimizer == pytest.approx(state)
    assert found.step == pytest.approx(step.peak, rel=0.01)
    assert found.batch == own["image"].nbytes + own["label"].nbytes


def test_plan_knows_the_epoch_and_the_memory_of_a_share_before_anything_is_opened(task, tmp_path):
    text = RECIPE.format(path=task, device="cpu") + "[data.preprocessing]\n"
    recipe = resolve_text(text, Path.cwd(), ["data.batch_size=3"]).recipe
    live = opened(recipe.data)
    found = recipe.data.epoch_size()
    assert (found.batches, found.items) == (live.batches_per_epoch, 2)
    assert replaced(recipe.data, steps_per_epoch=7).epoch_size().batches == 7
    whole, share = (recipe.model.step_memory(recipe, items) for items in (2, 1))
    assert (share.weights, share.optimizer) == (whole.weights, whole.optimizer)
    assert whole.step == pytest.approx(2 * share.step, rel=0.1)
    assert not share.batch_statistics
    with_statistics = replaced(recipe, model=replaced(recipe.model, norm="batch"))
    assert with_statistics.model.step_memory(with_statistics, 1).batch_statistics


def test_check_counts_the_average_of_the_weights_once_more(task):
    text = RECIPE.format(path=task, device="cpu")
    raw, averaged = (resolve_text(text + more, Path.cwd()).recipe for more in ("", "[ema]\n"))
    (without, _), (line, _) = ([*each.model.inspect(each, "headers")] for each in (raw, averaged))
    held = WeightAverage(UNet(channels=(4, 8)).network(1, 3, (16, 16, 16)), decay=0.9).content()["model"].values()
    num_bytes = sum(each.numel() * each.element_size() for each in held)
    assert "average" not in without
    assert f"(network {bytes_in_words(num_bytes)}, average {bytes_in_words(num_bytes)}, optimizer " in line


@pytest.mark.parametrize("regions", [None, {"whole": (1, 2), "core": (2,)}])
@pytest.mark.parametrize("crop", [False, True])
def test_validation_without_values_takes_what_validation_takes(task, tmp_path, regions, crop):
    settings = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), crop_to_nonzero=crop)
    if crop:
        for path in (task / "imagesTr").iterdir():
            image = made_up.image_of(made_up.shells(0, 2, (48, 40, 36)), 0)
            image[:2] = 0
            made_up.save(path, image)
    data = MSD(
        path=task, cache=Cache(folder=tmp_path / "cache"), split=SameCases(), preprocessing=settings, regions=regions
    )
    live = opened(data)
    metric, loss = Dice().build(live), partial(DiceCE().build(live), model=UNet())
    with PeakMemory() as taken, torch.no_grad():
        batch = next(live.evaluate("val"))
        own = {key: value.clone() if torch.is_tensor(value) else value for key, value in batch.items()}
        shape = own["image"].shape[2:]
        del batch
        outputs = {"logits": torch.zeros((1, 2 + live.exclusive, *shape))}
        loss(outputs, own)
        metric.update(outputs, own)
    grid = live._case("case_000").grid
    expected = validation_bytes(grid, 1, 2, live.exclusive, on_own_grid=True, losses=[loss])
    assert expected == pytest.approx(taken.peak, rel=0.25)


def test_the_cases_own_grid_is_counted():
    """Scores of a coarse grid are small; on the grid of a CT they are not."""
    fine, coarse = (400, 400, 200), (100, 100, 100)
    grid = Grid(fine, np.diag([0.8, 0.8, 2.0, 1.0]), (0, 1, 2), (False,) * 3, tuple((0, n) for n in fine), coarse)
    with_own = validation_bytes(grid, 1, 3, True, on_own_grid=True)
    assert with_own > 9 * np.prod(fine)  # the highest score so far, the next one, and the labels
    assert validation_bytes(grid, 1, 3, True, on_own_grid=False) < 40 * np.prod(coarse)


def test_the_largest_case_is_one_that_is_validated_after_cases_were_exchanged(tmp_path):
    folder = made_up.msd(tmp_path / "task", cases=6)
    data = MSD(path=folder, cache=Cache(folder=tmp_path / "cache"), patch_size=(16, 16, 16))
    held_out = data.split.divide({name: name for name in (f"case_{number:03d}" for number in range(6))})["val"]
    for name in held_out:  # nothing is annotated in these, so another case has to take their place
        path = folder / "labelsTr" / f"{name}.nii.gz"
        label = nibabel.load(path)
        made_up.save(path, np.zeros(label.shape, np.uint8), label.affine)
    live = opened(data)
    validated = {batch["case"] for batch in live.evaluate("val")}
    assert validated != set(held_out)
    found = memory._largest(data, data.cases(), on_own_grid=True, balanced=True)
    assert found is not None
    assert found[0] in validated


def test_batches_whose_loss_is_one_of_sums_are_counted_together(task):
    def training(*more):
        recipe = resolve_text(RECIPE.format(path=task, device="cpu"), Path.cwd(), list(more)).recipe
        return next(iter(recipe.model.inspect(recipe, "headers")))

    sums = "losses.overlap.batch_dice=true"
    assert training(sums, "run.accumulate=4") == training(sums, "data.batch_size=8")
    assert training("run.accumulate=4") == training()


def test_check_says_both_and_doubts_what_does_not_fit(task, monkeypatch):
    recipe = resolve_text(RECIPE.format(path=task, device="cpu"), Path.cwd()).recipe
    training, validation = recipe.model.inspect(recipe, "headers")
    assert training.startswith("memory for training: about ")
    assert "network" in training
    assert "optimizer" in training
    assert validation.endswith("for case_000, of 48 × 40 × 36 voxels")
    monkeypatch.setattr(memory, "free_host_memory", lambda: 100_000)
    doubts = [each for each in recipe.model.inspect(recipe, "all") if isinstance(each, Problem)]
    assert [each.severity for each in doubts] == ["warning", "warning"]
    assert "a training step takes about" in doubts[0].message
    assert "97.7 KiB are free" in doubts[1].message


def test_check_counts_training_and_validation_at_once_if_one_is_beside_the_other(task, monkeypatch):
    text = RECIPE.format(path=task, device="cpu")
    in_line, recipe = (
        resolve_text(text, Path.cwd(), [f"validation.beside={each}"]).recipe for each in ("false", "true")
    )
    assert len([*in_line.model.inspect(in_line, "headers")]) == 2
    free = 10**12
    monkeypatch.setattr(memory, "free_host_memory", lambda: free)
    training, validation, both = recipe.model.inspect(recipe, "headers")
    told = [bytes_of(each.partition("about ")[2]) for each in (training, validation, both)]
    assert told[2] > told[0] + told[1]
    free = int(1.05 * told[2])  # each alone fits, and both do without what is not counted on
    (*_, doubt) = recipe.model.inspect(recipe, "headers")
    assert doubt.severity == "warning"
    assert "at once (validation.beside) take about" in doubt.message


def bytes_of(text):
    number, unit = text.replace(",", "").split()[:2]
    return float(number) * {"KiB": 2**10, "MiB": 2**20}[unit]
