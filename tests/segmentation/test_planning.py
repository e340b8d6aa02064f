"""Plans are those of nnU-Net: what it planned for known data sets, and its own estimate of a network's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.planned import planned
from torch import nn

from trainkit import Progress, Recognised
from trainkit.recipe.resolve import resolve_text
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.planning.data_fingerprint import DataFingerprint, target_spacing
from trainkit_segmentation.planning.nnunet import NNUNetPlanner
from trainkit_segmentation.planning.topology import num_features, plan, shrunk, topology_of

CUBES = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("median", "cases", "scores", "patch", "batch"),
    [
        ((36, 50, 35), 260, 3, (40, 56, 40), 9),  # Task04, hippocampus
        ((36, 50, 36), 80, 3, (40, 56, 40), 3),  # nnU-Net 2.8 on 80 of its cases
        ((138, 169, 138), 484, 4, (128, 128, 128), 2),  # Task01, brain tumours
        ((140, 171, 136), 1251, 4, (128, 160, 112), 2),  # BraTS 2021
    ],
)
def test_patch_and_batch_are_those_that_nnunet_plans(
    median: tuple[int, ...], cases: int, scores: int, patch: tuple[int, ...], batch: int
) -> None:
    made = plan(CUBES, median, "plain", scores, float(np.prod(median)) * cases, 8.0)
    assert (made.topology.patch, made.batch_size) == (patch, batch)
    features = (32, 64, 128, 256) if batch > 2 else (32, 64, 128, 256, 320, 320)
    assert made.topology.features == features


def test_levels_of_thick_slices_are_those_of_nnunet() -> None:
    made = topology_of((1.5625, 1.5625, 5.0), (256, 224, 20))  # ACDC
    assert made.patch == (256, 224, 20)
    assert made.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))
    assert made.kernels == ((3, 3, 1), *((3, 3, 3),) * 5)


def test_planes_are_planned_as_nnunet_plans_in_two_dimensions() -> None:
    made = plan(CUBES, (512, 512, 1), "plain", 3, 1e12, 8.0)
    assert (made.topology.patch, made.batch_size) == ((512, 512, 1), 12)  # nnU-Net's reference for 8 GB
    assert made.topology.features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert set(made.topology.strides) == {(2, 2, 1)}
    assert set(made.topology.kernels) == {(3, 3, 1)}
    tight = plan(CUBES, (512, 512, 1), "plain", 3, 1e12, 0.2)
    assert np.prod(tight.topology.patch) < 512 * 512
    assert tight.topology.patch[2] == 1


def test_a_folder_of_planes_is_planned_with_numbered_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        shells = made_up.shells(number, 2, (40, 36, 3))[..., 1:2]
        made_up.save(tmp_path / "cases" / "images" / f"{number}.nii.gz", made_up.image_of(shells, number))
        made_up.save(tmp_path / "cases" / "labels" / f"{number}.nii.gz", shells)
    settings = ImageFolder.recognise(tmp_path / "cases")
    assert settings == {"path": tmp_path / "cases", "labels": {"class_1": 1, "class_2": 2}}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = planned(NNUNetPlanner(), Recognised("image_folder", ImageFolder, settings))
    found = resolve_text("\n".join(each for each in lines if isinstance(each, str)), tmp_path)
    assert found.recipe.data.patch_size == (40, 40, 1)
    assert found.recipe.data.labels == {"class_1": 1, "class_2": 2}


@pytest.mark.parametrize("spacing", [CUBES, (0.8, 0.8, 3.0)])
def test_the_size_of_a_network_is_what_its_own_class_says(spacing: tuple[float, ...]) -> None:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    made = topology_of(spacing, (48, 40, 24))
    levels = len(made.features)
    common = {
        "input_channels": 2,
        "n_stages": levels,
        "features_per_stage": list(made.features),
        "conv_op": nn.Conv3d,
        "kernel_sizes": [list(each) for each in made.kernels],
        "strides": [[1, 1, 1], *(list(each) for each in made.strides)],
        "num_classes": 3,
        "deep_supervision": True,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    plain = PlainConvUNet(n_conv_per_stage=2, n_conv_per_stage_decoder=2, **common)
    residual = ResidualEncoderUNet(n_blocks_per_stage=[1, 3, 4, 6, 6, 6][:levels], n_conv_per_stage_decoder=1, **common)
    assert num_features(made, "plain", 3) == plain.compute_conv_feature_map_size(made.patch)
    assert num_features(made, "resenc", 3) == residual.compute_conv_feature_map_size(made.patch)


def test_less_memory_gives_smaller_patches_down_to_the_smallest_network() -> None:
    patches = [plan(CUBES, (300, 300, 300), "plain", 3, 1e12, memory).topology for memory in (24, 8, 2, 0.1, 1e-6)]
    sizes = [float(np.prod(each.patch)) for each in patches]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > sizes[3]
    assert all(n % divisor == 0 for each in patches for n, divisor in zip(each.patch, each.divisors, strict=True))
    assert shrunk(patches[-1], CUBES, (300, 300, 300)) == patches[-1]


def fingerprint(spacings: np.ndarray, sizes: np.ndarray) -> DataFingerprint:
    return DataFingerprint(spacings, sizes, sizes, {}, {})


def test_the_spacing_is_the_median_and_along_thick_slices_the_tenth_percentile() -> None:
    rng = np.random.default_rng(0)
    spacings = np.stack([rng.uniform(1.3, 1.7, 30), rng.uniform(1.3, 1.7, 30), rng.uniform(5, 10, 30)], axis=1)
    sizes = np.tile([220, 240, 10], (30, 1))
    median = np.median(spacings, axis=0)
    thick = np.percentile(spacings[:, 2], 10)
    assert target_spacing(fingerprint(spacings, sizes)) == pytest.approx((median[0], median[1], thick), abs=1e-6)
    many_slices = np.tile([220, 240, 100], (30, 1))
    assert target_spacing(fingerprint(spacings, many_slices)) == pytest.approx(tuple(median), abs=1e-6)


def drafted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **wishes: object) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = list(planned(NNUNetPlanner(**wishes), Recognised("msd", MSD, {"path": folder})))
    assert any(isinstance(each, Progress) for each in found)
    return "\n".join(each for each in found if isinstance(each, str))


@pytest.mark.parametrize("network", [None, "resenc"])
def test_a_planned_recipe_is_without_mistakes_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str | None
) -> None:
    folder = made_up.msd(tmp_path / "cases", channels=2, cases=6, size=(40, 44, 30))
    text = drafted(folder, tmp_path, monkeypatch, network=network)
    found = resolve_text(text, tmp_path)
    assert not [each for each in found.notes if each.severity != "note"]
    data = found.recipe.data
    assert isinstance(data, MSD)
    assert data.preprocessing.spacing_mm == (1.0, 1.0, 1.5)
    assert data.patch_size == (40, 48, 32)
    assert data.foreground_sampling == "share"
    assert type(found.recipe.model).__name__ == ("DynUNet" if network is None else "ResEncUNet")
    assert "median case 40 × 44 × 30 at 1 × 1 × 1.5 mm" in text
    assert "measured on tensors without values" in text


def test_ct_is_normalised_by_its_classes_and_a_class_of_no_case_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_up.msd(tmp_path / "cases", cases=3)
    description = folder / "dataset.json"
    text = description.read_text().replace('"MR0"', '"CT"').replace('"2": "Posterior"', '"2": "Posterior", "7": "none"')
    description.write_text(text)
    recipe = drafted(folder, tmp_path, monkeypatch)
    data = resolve_text(recipe, tmp_path).recipe.data
    assert isinstance(data, MSD)
    assert data.preprocessing.normalization == "foreground"
    assert data.classes == ("Anterior", "Posterior")
    assert type(data.split).__name__ == "SameCases"  # three cases are too few to hold some out


def test_a_network_that_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match=r'no network "resnet" can be planned; did you mean "resenc_unet"'):
        NNUNetPlanner(network="resnet")
