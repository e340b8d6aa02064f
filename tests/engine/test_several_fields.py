"""Segmentation and ptychography in two processes: the course of one process, and its bits with shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from clients.together import Together

from engine.test_several import logged, newest
from trainkit.engine.verify import differences

pytestmark = pytest.mark.slow

SEGMENTATION = """
trainkit = 1
[run]
name = "{name}"
epochs = 2
device = "cpu"
threads = 1
accumulate = 2
[monitor]
metric = "val/dice"
mode = "max"
[data]
use = "msd"
path = "{folder}/cases"
cache = {{ folder = "{folder}/cache" }}
batch_size = 5
patch_size = [16, 16, 16]
steps_per_epoch = 3
[data.augmentation]
flip = {{}}
affine = {{}}
noise = {{}}
[data.annotated]
"case_00[0-2]*" = ["Anterior"]
"case_00[3-5]*" = ["Anterior", "Posterior"]
[model]
use = "unet"
channels = [4, 8]
[losses.overlap]
use = "dice_ce"
batch_dice = true
[metrics.dice]
use = "dice"
[inference]
use = "sliding_window"
[optimizer]
use = "sgd"
lr = 0.05
[ema]
decay = 0.9
[hooks.overlays]
use = "segmentation_overlays"
num_cases = 2
[pictures]
every_epochs = 2
"""
WORKERS = """
[run]
activation_checkpointing = true
shards = 2
[data]
workers = 1
[data.augmentation]
on = "device"
"""
PTYCHOGRAPHY = """
trainkit = 1
[run]
name = "{name}"
epochs = 2
device = "cpu"
threads = 1
[monitor]
metric = "val/loss"
[data]
use = "diffraction_simulated"
scan_shape = [6, 6]
detector_size = 24
batch_size = 7
validation_fraction = 0.1
[model]
use = "ptychography"
probe = {{ use = "aperture", modes = 2, opr_modes = 1 }}
[losses.data]
use = "poisson"
[losses.smooth]
use = "tv"
weight = 10.0
[losses.anchor]
use = "position_anchor"
sigma_pixels = 0.3
[optimizer]
use = "scaled_steps"
[groups.object]
lr = 0.5
[groups.probe]
lr = 0.5
start_epoch = 0
[groups.opr_modes]
lr = 0.5
start_epoch = 0
[groups.opr_weights]
lr = 0.5
start_epoch = 0
[groups.dr]
lr = 0.5
start_epoch = 1
[pictures]
every_epochs = 0
"""
THICK = """
[run]
accumulate = 2
shards = 2
[data]
slices = 3
thickness_angstrom = 30.0
[model]
slices = 3
thickness_angstrom = 30.0
[model.constraints.coupling]
use = "slice_coupling"
sigma_angstrom = 3.0
every_epochs = 1
[model.constraints.positive]
use = "limits"
min_phase_rad = 0.0
every_epochs = 1
"""
PLAIN, SHARDS = ("patches", "scan"), ("patches_shards", "scan_shards")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, together: Together) -> Mapping[int, Path]:
    """The folder of one and of two processes, in which the same recipes were run."""
    folders = {world: tmp_path_factory.mktemp(f"world{world}") for world in (1, 2)}
    for world, folder in folders.items():
        _partly_annotated(folder / "cases")
        for kind, text, changes in zip(PLAIN, (SEGMENTATION, PTYCHOGRAPHY), (WORKERS, THICK), strict=True):
            (folder / f"{kind}.toml").write_text(text.format(name=kind, folder=folder))
            changed = text.format(name=f"{kind}_shards", folder=folder)
            (folder / f"{kind}_base.toml").write_text(changed)
            (folder / f"{kind}_shards.toml").write_text(f'extends = ["{kind}_base.toml"]\n{changes}')
        together(world, folder, "run", *(f"{name}.toml" for name in (*PLAIN, *SHARDS)), "-q")
    return folders


def _partly_annotated(folder: Path) -> None:
    """Write cases of which half were annotated for one class, and with ignored voxels in all."""
    made_up.msd(folder, cases=6)
    for number in range(6):
        path = folder / "labelsTr" / f"case_{number:03d}.nii.gz"
        label = nibabel.load(path)
        values = np.asarray(label.dataobj).copy()
        if number < 3:
            values[values == 2] = 0
        values[:, :, : 3 + number] = 3
        nibabel.save(nibabel.Nifti1Image(values, label.affine), path)
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"]["3"] = "ignore"
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", PLAIN)
def test_two_processes_follow_the_course_of_one(finished: Mapping[int, Path], name: str) -> None:
    one, two = (newest(finished[world], name)["model"] for world in (1, 2))
    for key, value in one.items():
        # Displacements, in pixels, add up the rounding of all steps; a wrong scale of gradients would be off by 1e-3.
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=5e-5)
    for mine, its in zip(logged(finished[1], name), logged(finished[2], name), strict=True):
        assert mine.keys() == its.keys()
        for key in mine.keys() - {"seconds"}:
            np.testing.assert_allclose(its[key], mine[key], rtol=1e-3, err_msg=key)


@pytest.mark.parametrize("name", SHARDS)
def test_with_shards_two_processes_make_the_bits_of_one(finished: Mapping[int, Path], name: str) -> None:
    assert list(differences(newest(finished[1], name), newest(finished[2], name))) == []


def test_pictures_and_tables_are_of_the_cases_of_all_processes(finished: Mapping[int, Path]) -> None:
    (one,), (two,) = ((finished[world] / "runs" / "patches_shards").iterdir() for world in (1, 2))
    assert (one / "cases.csv").read_text() == (two / "cases.csv").read_text()
    pictures = sorted(path.name for path in (one / "figures").rglob("overlay*"))
    assert pictures
    for picture in pictures:
        assert (next((one / "figures").rglob(picture)).read_bytes()) == next(
            (two / "figures").rglob(picture)
        ).read_bytes()
