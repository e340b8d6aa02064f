"""Patches are changed in the same way wherever that happens: in workers or on the device of the run, alone or together.

The tests of devices run on the CPU, and on CUDA too where there is a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from scipy import stats

from segmentation.test_patches import EVERYTHING, same
from trainkit import Context
from trainkit_segmentation.data import kind
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.patches.augmentation import Augmentation, Noise
from trainkit_segmentation.patches.intensities import CHANGES, change_intensities, draw_intensities, of_a_batch
from trainkit_segmentation.patches.numbers import gaussian_noise, moved
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.same_cases import SameCases

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
ON_DEVICE = attrs.evolve(EVERYTHING, on="device")


def context(device: str = "cpu") -> Context:
    return Context(seed=3, device=torch.device(device), folder=Path())


def blobs(folder: Path, **settings) -> SyntheticSegmentation:
    small = {"num_cases": 5, "size": (26, 30, 28), "patch_size": (20, 20, 20), "batch_size": 3, "steps_per_epoch": 4}
    return SyntheticSegmentation(**(small | {"cache": Cache(folder=folder)} | settings))


@pytest.fixture
def _in_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- noise ----------------------------------------------------------------------------------------------------------


def keys(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers).reshape(-1, 2)


def test_noise_is_normal_and_independent_from_voxel_to_voxel_and_from_key_to_key() -> None:
    rows = gaussian_noise(keys(0, 1, 1, 1, 0, 3, 2**32 - 1, 2**31 - 1), (40, 41, 39)).double()
    number = rows[0].numel()
    for row in rows:
        assert stats.kstest(row.flatten().numpy()[:20000], "norm").pvalue > 1e-3
        assert row.mean().abs() < 4 / number**0.5
        assert row.var().item() == pytest.approx(1, abs=4 * (2 / number) ** 0.5)
        assert (row**4).mean().item() == pytest.approx(3, abs=4 * (96 / number) ** 0.5)
        for axis in range(3):
            n = row.shape[axis]
            assert (row.narrow(axis, 1, n - 1) * row.narrow(axis, 0, n - 1)).mean().abs() < 5 / number**0.5
    between = np.corrcoef(rows.flatten(1).numpy())
    assert np.abs(between - np.eye(len(rows))).max() < 5 / number**0.5
    squared = np.corrcoef((rows**2).flatten(1).numpy())
    assert np.abs(squared - np.eye(len(rows))).max() < 5 / number**0.5


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_the_formula_in_whole_numbers_of_python_on_every_device(device: str) -> None:
    def mixed(bits: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x446CA68B)):
            bits = ((bits ^ bits >> shift) * factor) % 2**32
        return bits ^ bits >> 16

    first, step = 4000000000, 2**31 - 5
    bits = [mixed((first + voxel * step) % 2**32) for voxel in range(16)]
    radius = np.sqrt(-2 * np.log((np.array(bits[:8]) + 1) / 2**32))
    angle = 2 * np.pi * np.array(bits[8:]) / 2**32
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:15]
    found = gaussian_noise(keys(first, step).to(device), (5, 3, 1))
    assert np.allclose(found.flatten().cpu().numpy(), expected, atol=1e-5)


# ---- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_one_thread")
def test_on_the_cpu_workers_and_device_give_the_same_bits(tmp_path: Path) -> None:
    by_workers = list(blobs(tmp_path, augmentation=EVERYTHING).build(context()).train(1, 0))
    on_device = blobs(tmp_path, augmentation=ON_DEVICE).build(context())
    assert same(on_device.train(1, 0), by_workers)
    assert same(on_device.train(1, 2), by_workers[2:])
    assert same(blobs(tmp_path, augmentation=ON_DEVICE, workers=2).build(context()).train(1, 0), by_workers)


@pytest.mark.usefixtures("_in_one_thread")
def test_classes_that_overlap_and_ignored_voxels_come_from_the_device_too(tmp_path: Path) -> None:
    folder = made_up.brats(tmp_path / "brats", cases=2)
    settings = {"cache": Cache(folder=tmp_path), "split": SameCases(), "patch_size": (9, 9, 9), "steps_per_epoch": 3}
    for more in ({}, {"ignored_values": (2,), "regions": {"core": (1, 4)}}):
        data = BraTS(path=folder, augmentation=EVERYTHING, **settings, **more)
        by_workers = list(data.build(context()).train(0, 0))
        assert ("ignored" in by_workers[0]) is bool(more)
        assert same(attrs.evolve(data, augmentation=ON_DEVICE).build(context()).train(0, 0), by_workers)


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_applies_the_same_parameters(device: str, tmp_path: Path) -> None:
    here = list(blobs(tmp_path, augmentation=ON_DEVICE).build(context()).train(0, 0))
    there = list(blobs(tmp_path, augmentation=ON_DEVICE, workers=1).build(context(device)).train(0, 0))
    for one, other in zip(here, there, strict=True):
        assert all(value.device.type == device for name, value in other.items() if name != "index")
        assert torch.allclose(one["image"], other["image"].cpu(), atol=1e-3)
        assert (one["label"] != other["label"].cpu()).float().mean() < 1e-3  # a voxel halfway between two


@pytest.mark.parametrize("device", DEVICES)
def test_all_rows_at_once_are_changed_as_each_alone(device: str) -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(8, 3, 12, 10, 8)).astype(np.float32))
    drawn = [draw_intensities(EVERYTHING, 3, rng) for _ in images]
    changes = of_a_batch(drawn, 3)
    assert changes.keys() == CHANGES.keys()
    alone, together = images.clone().flatten(0, 1), images.clone().flatten(0, 1).to(device)
    change_intensities(alone, changes, EVERYTHING, at_once=False)
    change_intensities(together, changes, EVERYTHING, at_once=True)
    assert not torch.allclose(alone, images.flatten(0, 1), atol=1e-2)
    assert torch.allclose(alone, together.cpu(), atol=1e-4)
    one_by_one = images.clone()
    for image, of_patch in zip(one_by_one, drawn, strict=True):
        change_intensities(image, of_a_batch([of_patch], 3), EVERYTHING, at_once=False)
    assert torch.equal(one_by_one.flatten(0, 1), alone)


def test_numbers_are_moved_in_one_copy_for_each_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **more: copies.append(1) or to(tensor, *args, **more))
    arrays = {
        "a": np.arange(6, dtype=np.int64).reshape(2, 3),
        "b": np.float32([[0.5]]),
        "c": np.zeros((0, 2), np.int64),
        "d": np.arange(2, dtype=np.float32),
    }
    there = moved(arrays, torch.device("cpu"))
    assert len(copies) == 2
    assert all(np.array_equal(there[name].numpy(), array) for name, array in arrays.items())
    assert moved({}, torch.device("cpu")) == {}


def test_the_device_is_advised_where_it_waits_for_workers_that_keep_all_cpus_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kind, "usable_cpus", lambda: 4)

    def advice(workers: int, device: str, on: Any) -> str | None:
        data = SyntheticSegmentation(workers=workers, augmentation=Augmentation(on=on, noise=Noise()))
        return data.against_waiting(Context(0, torch.device(device), Path()))

    assert "raise data.workers" in str(advice(2, "cuda", "workers"))
    assert 'data.augmentation.on = "device"' in str(advice(3, "cuda:1", "workers"))
    for device, on in (("cpu", "workers"), ("cuda", "device")):  # a CPU would only do the same work itself
        assert "leave out changes" in str(advice(3, device, on))
