"""Volumes are brought onto the network's grid and back, and patches are a function of (seed, epoch, sample)."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up

from trainkit import Context, DataError, Exchange
from trainkit.console import Console
from trainkit.processes.place import Place
from trainkit_segmentation.cases.case import Volume
from trainkit_segmentation.cases.labels import target
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.patches.augmentation import (
    Affine,
    Augmentation,
    Blur,
    Brightness,
    Contrast,
    Elastic,
    Flip,
    Gamma,
    LowResolution,
    Noise,
)
from trainkit_segmentation.patches.augmentation_live import Source, augment, cut_patches
from trainkit_segmentation.patches.cutting import choose_start, cut
from trainkit_segmentation.patches.deformation import (
    Deformation,
    bounds,
    displacements,
    draw_affine,
    draw_bending,
    resample,
    rotation_and_scale,
    source_coordinates,
)
from trainkit_segmentation.patches.intensities import (
    blur,
    blur_weights,
    change_intensities,
    draw_exponents,
    draw_intensities,
    lower_resolution,
    of_a_batch,
    raise_to_power,
)
from trainkit_segmentation.patches.numbers import moved
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import normalise, prepare
from trainkit_segmentation.splits.same_cases import SameCases

EVERYTHING = Augmentation(
    affine=Affine(probability=0.7),
    elastic=Elastic(probability=0.7, displacement_mm=1.0, node_distance_mm=6.0),
    flip=Flip(),
    noise=Noise(probability=0.7),
    brightness=Brightness(probability=0.7),
    contrast=Contrast(probability=0.7),
    blur=Blur(probability=0.7),
    low_resolution=LowResolution(probability=0.7),
    inverted_gamma=Gamma(probability=0.7, draw="balanced", keep_mean_and_deviation=True),
    gamma=Gamma(probability=0.7),
)


def context(seed: int = 3, rank: int = 0, world: int = 1) -> Context:
    return Context(seed, torch.device("cpu"), Path(), Exchange(Place(rank, world)))


@pytest.fixture
def synthetic(tmp_path):
    def make(**settings):
        small = {"num_cases": 5, "size": (20, 22, 18), "patch_size": (12, 12, 12), "cache": Cache(folder=tmp_path)}
        return SyntheticSegmentation(**(small | settings))

    return make


CPU = torch.device("cpu")


def bent(settings, size, spacing, rng):
    """Return a field of displacements as an array."""
    return displacements(moved(draw_bending(settings, size, spacing, rng), CPU)).numpy()


def changed(image, settings, rng):
    """Return an image (C, X, Y, Z) with its intensities changed."""
    rows = torch.from_numpy(image.copy())
    change_intensities(rows, of_a_batch([draw_intensities(settings, len(image), rng)], len(image)), settings)
    return rows.numpy()


def same(batches, others) -> bool:
    batches, others = list(batches), list(others)
    return len(batches) == len(others) and all(
        one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(batches, others, strict=True)
    )


# ---- the grid -------------------------------------------------------------------------------------------------------

TURNED = np.array([[0, 0, -2.5, 40.0], [-0.8, 0, 0, 11.0], [0, 1.2, 0, -7.0], [0, 0, 0, 1]])
"""Axes point to posterior, superior, left, with voxels of 0.8, 1.2, 2.5 mm."""


def in_space(shape, affine) -> np.ndarray:
    """Return where each voxel lies, (3, X, Y, Z) in mm."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.einsum("ij,j...->i...", affine[:3, :3], voxels) + affine[:3, 3].reshape(3, 1, 1, 1)


def ramp_volume(shape=(20, 15, 12), affine=TURNED) -> Volume:
    """Return an image whose three channels are the coordinates in mm, right, front and up."""
    codes = np.zeros(shape, np.uint8)
    codes[4:14, 5:12, 3:9] = 1
    codes[7:10, 7:10, 5:8] = 2
    return Volume(in_space(shape, affine).astype(np.float32), codes, None, affine)


def test_axes_point_where_the_orientation_says():
    prepared = prepare(ramp_volume(), Preprocessing(orientation="RAS", normalization="none"), 2)
    assert prepared.image_CXYZ.shape == (3, 12, 20, 15)
    for axis in range(3):
        steps = np.diff(prepared.image_CXYZ[axis], axis=axis)
        assert np.allclose(steps, (2.5, 0.8, 1.2)[axis], atol=1e-5)
        others = [other for other in range(3) if other != axis]
        assert all(np.allclose(np.diff(prepared.image_CXYZ[axis], axis=other), 0, atol=1e-5) for other in others)


@pytest.mark.parametrize("wanted", ["RAS", "LPS", "SRA", "AIL"])
def test_orientation_is_monais(wanted):
    from monai.data import MetaTensor
    from monai.transforms import Orientation

    volume = ramp_volume()
    theirs = Orientation(axcodes=wanted, labels=(("L", "R"), ("P", "A"), ("I", "S")))(
        MetaTensor(torch.from_numpy(volume.image_CXYZ), affine=torch.from_numpy(volume.affine))
    )
    ours = prepare(volume, Preprocessing(orientation=wanted, normalization="none"), 2)
    assert np.array_equal(ours.image_CXYZ, theirs.numpy())


def test_resampling_leaves_everything_where_it_is_in_space():
    settings = Preprocessing(orientation="RAS", spacing_mm=(1.0, 1.0, 1.0), normalization="none")
    prepared = prepare(ramp_volume(), settings, 2)
    assert prepared.grid.shape == (30, 16, 18)
    assert prepared.grid.spacing_mm == pytest.approx((1.0, 1.0, 1.0))
    # Right, front and up run over the extent of the own voxels, from outer edge to outer edge, evenly.
    extents = ((40 - 2.5 * 5.5, 12, 2.5), (11 - 0.8 * 9.5, 20, 0.8), (-7 + 1.2 * 7, 15, 1.2))
    for axis, (centre, n, mm) in enumerate(extents):
        count = prepared.grid.shape[axis]
        expected = centre - n * mm / 2 + (np.arange(count) + 0.5) * n * mm / count
        found = np.moveaxis(prepared.image_CXYZ[axis], axis, 0).reshape(count, -1)
        inside = (expected > centre - (n - 1) * mm / 2) & (expected < centre + (n - 1) * mm / 2)
        assert np.allclose(found[inside], expected[inside, None], atol=1e-4)


def test_labels_are_resampled_to_where_the_image_is():
    codes = np.zeros((20, 15, 12), np.uint8)
    codes[4:12, 4:10, 2:8] = 1
    volume = Volume(codes[None].astype(np.float32), codes, None, np.eye(4))
    for spacing in ((2.0, 2.0, 2.0), (1.6, 0.7, 3.0)):
        prepared = prepare(volume, Preprocessing(spacing_mm=spacing, normalization="none"), 1)
        label_XYZ = prepared.label_codes_XYZ
        places = np.stack(np.meshgrid(*map(np.arange, label_XYZ.shape), indexing="ij"))
        centre = np.array([8, 7, 5]) * label_XYZ.shape / codes.shape - 0.5
        assert np.abs(places[:, label_XYZ == 1].mean(1) - centre).max() < 0.25  # edges inside of voxels cannot be met
        assert label_XYZ.mean() == pytest.approx(codes.mean(), rel=0.1)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("spacing", [None, (0.9, 1.1, 1.3)])
def test_scores_come_back_to_where_they_were(crop, spacing):
    volume = ramp_volume()
    image = volume.image_CXYZ.copy()
    image[:, :2], image[:, :, 13:], image[:, :, :, -1:] = 0, 0, 0
    settings = Preprocessing(spacing_mm=spacing, crop_to_nonzero=crop, normalization="none")
    prepared = prepare(Volume(image, volume.label_codes_XYZ, None, TURNED), settings, 2)
    ramps = prepare(Volume(volume.image_CXYZ, volume.label_codes_XYZ, None, TURNED), settings, 2)
    grid = prepared.grid
    if crop:
        assert grid.box == ((1, 12), (0, 18), (0, 13))
        kept = (slice(2, None), slice(None, 13), slice(None, -1))
        scores = ramps.grid.cut(ramps.grid.turn(volume.image_CXYZ))[(slice(None), *(slice(*pair) for pair in grid.box))]
        from trainkit_segmentation.preparing.grid import stretch

        back = grid.to_own(stretch(torch.from_numpy(scores.copy()), grid.shape), background=0).numpy()
        outside = np.ones(volume.label_codes_XYZ.shape, bool)
        outside[kept] = False
        assert (back[0][outside] == 1e4).all()
        assert (back[1:, outside] == -1e4).all()
    else:
        kept = (slice(None),) * 3
        back = grid.to_own(torch.from_numpy(ramps.image_CXYZ), background=0).numpy()
    inner = (slice(None), *(slice(2, -2),) * 3)
    there, expected = back[(slice(None), *kept)], volume.image_CXYZ[(slice(None), *kept)]
    if spacing is None:
        assert np.array_equal(there, expected)
    assert np.allclose(there[inner], expected[inner], atol=1e-3)


def test_a_volume_of_one_voxel_and_an_empty_one_are_no_crash():
    one = Volume(np.ones((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1), np.uint8), None, np.eye(4))
    assert prepare(one, Preprocessing(spacing_mm=(5.0, 5.0, 5.0)), 1).image_CXYZ.shape == (1, 1, 1, 1)
    empty = Volume(np.zeros((1, 4, 4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), None, np.eye(4))
    with pytest.raises(DataError, match="all voxels of the image are 0"):
        prepare(empty, Preprocessing(crop_to_nonzero=True), 1)


def test_normalisation_is_monais():
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    rng = np.random.default_rng(0)
    image = (rng.normal(300, 50, (2, 9, 8, 7)) * (rng.random((2, 9, 8, 7)) > 0.4)).astype(np.float32)
    for name, theirs in {
        "zscore": NormalizeIntensity(channel_wise=True),
        "zscore_nonzero": NormalizeIntensity(channel_wise=True, nonzero=True),
        "window": ScaleIntensityRange(a_min=100, a_max=350, b_min=0, b_max=1, clip=True),
    }.items():
        ours = normalise(image.copy(), Preprocessing(normalization=name, window=(100.0, 350.0)))
        assert np.allclose(ours, np.asarray(theirs(image.copy())), atol=1e-5), name


def test_intensities_beyond_half_precision_are_kept_in_single():
    volume = ramp_volume()
    raw = Volume(volume.image_CXYZ * 1e6, volume.label_codes_XYZ, None, TURNED)
    assert prepare(raw, Preprocessing(normalization="none"), 2).image_CXYZ.dtype == np.float32
    assert prepare(raw, Preprocessing(normalization="zscore"), 2).image_CXYZ.dtype == np.float16


# ---- patches --------------------------------------------------------------------------------------------------------


def test_a_patch_is_the_volume_there_and_zero_outside_of_it():
    volume = torch.arange(2 * 5 * 6 * 7, dtype=torch.float16).reshape(2, 5, 6, 7)
    padded = np.pad(volume.numpy(), ((0, 0), (9, 9), (9, 9), (9, 9)))
    for start in ((1, 0, 2), (-2, 3, -1), (4, 5, 6), (-9, 0, 0), (9, 0, 0)):
        out = torch.full((2, 4, 3, 5), 7.0)
        cut(volume, start, out)
        x, y, z = (first + 9 for first in start)
        assert np.array_equal(out, padded[:, x : x + 4, y : y + 3, z : z + 5])


def tensors_of(label_codes_XYZ: np.ndarray, num_classes: int = 2) -> dict[str, torch.Tensor]:
    volume = Volume(np.ones((1, *label_codes_XYZ.shape), np.float32), label_codes_XYZ, None, np.eye(4))
    prepared = prepare(volume, Preprocessing(orientation=None), num_classes)
    names = {"label_codes": prepared.label_codes_XYZ, "places": prepared.places, "place_counts": prepared.place_counts}
    return {name: torch.from_numpy(array) for name, array in names.items()}


def test_foreground_patches_are_centred_on_each_class_alike_and_stay_inside():
    codes = np.zeros((30, 31, 32), np.uint8)
    codes[4:28, 4:28, 4:28] = 1  # 13,000 voxels
    codes[10, 11, 12] = 2  # one voxel
    tensors = tensors_of(codes)
    rng = np.random.default_rng(0)
    starts = np.array([choose_start(tensors, (9, 9, 9), 1.0, rng) for _ in range(600)])
    assert starts.min() >= 0
    assert (starts + 9 <= codes.shape).all()
    on_the_one = (starts + 4 == (10, 11, 12)).all(axis=1).mean()
    assert on_the_one == pytest.approx(0.5, abs=0.07)


def test_the_share_of_foreground_patches_is_the_probability():
    codes = np.zeros((40, 40, 40), np.uint8)
    codes[20, 20, 20] = 1
    tensors = tensors_of(codes, 1)
    rng = np.random.default_rng(1)
    starts = [choose_start(tensors, (5, 5, 5), 0.3, rng) for _ in range(2000)]
    assert np.mean([start == (18, 18, 18) for start in starts]) == pytest.approx(0.3, abs=0.04)


def test_patches_are_anywhere_else_evenly_up_to_both_ends():
    tensors = tensors_of(np.zeros((12, 12, 12), np.uint8))
    rng = np.random.default_rng(2)
    starts = np.array([choose_start(tensors, (8, 8, 8), 1.0, rng) for _ in range(3000)])
    for axis in range(3):
        assert np.bincount(starts[:, axis], minlength=5) == pytest.approx(600, abs=110)
    assert len(np.bincount(starts[:, 0])) == 5


def test_a_volume_smaller_than_the_patch_lies_in_its_middle():
    tensors = tensors_of(np.zeros((6, 20, 7), np.uint8))
    x, _, z = choose_start(tensors, (10, 10, 10), 0.0, np.random.default_rng(3))
    assert (x, z) == (-2, -1)


# ---- augmentation ---------------------------------------------------------------------------------------------------


def test_a_quarter_turn_about_z_is_rot90():
    matrix = rotation_and_scale(np.radians([0.0, 0.0, 90.0]), np.ones(3), (1.0, 1.0, 1.0))
    volume = torch.rand(2, 9, 9, 5, generator=torch.Generator().manual_seed(0))
    out = resample(volume, source_coordinates((0, 0, 0), (9, 9, 5), matrix, None, CPU), nearest=False)
    turns = [torch.rot90(volume, k, (1, 2)) for k in (1, 3)]
    assert any(torch.allclose(out, turned, atol=1e-5) for turned in turns)


def test_a_ball_stays_a_ball_where_voxels_are_no_cubes():
    spacing = np.array([0.7, 1.0, 3.0])
    settings = Affine(probability=1.0, rotation_degrees=(40.0, 60.0, 80.0), scale=(1.25, 1.25))
    matrix = draw_affine(settings, spacing, np.random.default_rng(5))
    in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
    assert np.allclose(in_mm @ in_mm.T, np.eye(3) / 1.25**2)
    assert np.linalg.det(in_mm) > 0


def test_rotations_are_those_of_monai():
    from monai.transforms.utils import create_rotate

    for axis in range(3):
        angles = np.zeros(3)
        angles[axis] = np.radians(30.0)
        matrix = rotation_and_scale(angles, np.ones(3), (1, 1, 1))
        theirs = [create_rotate(3, list(sign * angles))[:3, :3] for sign in (1, -1)]
        assert any(np.allclose(matrix, each) for each in theirs)


def test_patches_are_rotated_and_scaled_independently_as_often_as_it_is_said():
    settings = Affine(probability=0.2, rotation_degrees=(30.0, 30.0, 30.0), scale=(0.7, 1.4), scale_probability=0.4)
    rng = np.random.default_rng(1)
    drawn = [draw_affine(settings, (1, 1, 1), rng) for _ in range(1500)]
    some = [np.eye(3) if each is None else each for each in drawn]
    scaled = [abs(np.linalg.det(each) - 1) > 1e-9 for each in some]
    rotated = [not np.allclose(each, np.diag(np.diag(each))) for each in some]
    both = [one and other for one, other in zip(scaled, rotated, strict=True)]
    assert np.mean(scaled) == pytest.approx(0.4, abs=0.04)
    assert np.mean(rotated) == pytest.approx(0.2, abs=0.04)
    assert np.mean(both) == pytest.approx(0.08, abs=0.03)
    sizes = [np.linalg.det(each) ** (-1 / 3) for each in some]
    assert 0.7 <= min(sizes) < 0.72
    assert 1.37 < max(sizes) <= 1.4


def test_the_axis_of_thick_slices_keeps_its_scale():
    settings = Affine(
        probability=1.0, rotation_degrees=(0.0, 0.0, 180.0), scale=(0.7, 1.4), scale_probability=1.0, scaled_axes=(0, 1)
    )
    matrix = draw_affine(settings, (0.5, 0.5, 5.0), np.random.default_rng(2))
    assert np.allclose(matrix[2], (0, 0, 1))
    assert np.allclose(matrix[:, 2], (0, 0, 1))
    assert abs(np.linalg.det(matrix) - 1) > 1e-3


def test_deformed_patches_show_the_ramp_where_they_come_from():
    ramp = in_space((30, 28, 26), np.eye(4)).astype(np.float32)
    size, start = (10, 9, 8), (9, 8, 7)
    rng = np.random.default_rng(6)
    matrix = draw_affine(Affine(probability=1.0, rotation_degrees=(20.0, 20.0, 20.0)), (1, 1, 2), rng)
    bending = draw_bending(Elastic(displacement_mm=1.0, node_distance_mm=5.0), size, (1, 1, 2), rng)
    field = displacements(moved(bending, CPU)).numpy()
    places = source_coordinates(start, size, matrix, torch.from_numpy(field), CPU).numpy()
    out = resample(torch.from_numpy(ramp), torch.from_numpy(places), nearest=False)
    assert np.allclose(out.numpy(), places, atol=2e-4)
    lowest, highest = bounds(start, size, Deformation(matrix, bending))
    found = places.reshape(3, -1).min(axis=1), places.reshape(3, -1).max(axis=1)
    assert (lowest <= found[0] + 1e-5).all()
    assert (highest >= found[1] - 1e-5).all()
    assert (highest - lowest <= (found[1] - found[0]) * 2).all()  # no more of the case is read than is needed
    grid = in_space(size, np.eye(4)) - (np.array(size) - 1).reshape(3, 1, 1, 1) / 2
    centre = (np.array(start) + (np.array(size) - 1) / 2).reshape(3, 1, 1, 1)
    assert np.allclose(places, np.einsum("ij,j...->i...", matrix, grid) + centre + field, atol=1e-4)


def test_bending_is_smooth_and_of_the_strength_that_is_said():
    settings = Elastic(displacement_mm=3.0, node_distance_mm=12.0)
    fields = [bent(settings, (48, 48, 24), (1.0, 1.0, 2.0), np.random.default_rng(seed)) for seed in range(12)]
    in_mm = np.stack(fields) * np.array([1.0, 1.0, 2.0]).reshape(1, 3, 1, 1, 1)
    assert in_mm.std() == pytest.approx(3.0, rel=0.2)
    second = np.diff(in_mm, n=2, axis=2)
    assert np.abs(second).max() < 3.0 * 6 / 12**2 * 3  # curvature of splines of that distance, not noise


def test_labels_follow_the_image():
    codes = torch.from_numpy(made_up.shells(1, 2, (30, 30, 30)).astype(np.uint8))
    settings = Augmentation(affine=Affine(probability=1.0), elastic=Elastic(probability=1.0), flip=Flip())
    for seed in range(4):
        rng = np.random.default_rng(seed)
        source = Source(codes[None].float(), codes, (7, 7, 7), (1, 1, 1), rng)
        image, label = augment(cut_patches([source], (16, 16, 16), settings), settings)
        near = (image[0, 0] - label[0]).abs()
        assert near.mean() < 0.2
        assert (near <= 1).float().mean() > 0.98
        assert set(label.unique().tolist()) <= {0, 1, 2}


def test_flips_mirror_the_axes_that_are_named():
    volume = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    codes = (volume[0] > 0.5).to(torch.uint8)
    settings = Augmentation(flip=Flip(probability=1.0, axes=(0, 2)))
    source = Source(volume, codes, (0, 0, 0), (1, 1, 1), np.random.default_rng(0))
    image, label = augment(cut_patches([source], (8, 8, 8), settings), settings)
    assert torch.equal(image[0], volume.flip(1, 3))
    assert torch.equal(label[0], codes.flip(0, 2))


def test_intensity_changes_are_monais():
    from monai.transforms import AdjustContrast

    image = np.random.default_rng(0).normal(size=(2, 6, 6, 6)).astype(np.float32)
    for settings, theirs in (
        (Augmentation(gamma=Gamma(probability=1.0, exponent=(1.4, 1.4))), AdjustContrast(gamma=1.4)),
        (Augmentation(brightness=Brightness(probability=1.0, factor=(1.2, 1.2))), lambda channel: channel * 1.2),
        (
            Augmentation(contrast=Contrast(probability=1.0, factor=(1.3, 1.3))),
            lambda channel: np.clip((channel - channel.mean()) * 1.3 + channel.mean(), channel.min(), channel.max()),
        ),
    ):
        ours = changed(image, settings, np.random.default_rng(1))
        for channel in range(2):
            assert np.allclose(ours[channel], np.asarray(theirs(image[channel])), atol=1e-5)


def test_blur_is_a_convolution_with_a_gaussian():
    image = np.zeros((25, 21, 23), np.float32)
    image[12, 10, 11] = 1
    sigmas = np.array([(1.0, 1.0, 1.0), (0.5, 0.8, 1.0)])
    rows = torch.from_numpy(image).repeat(2, 1, 1, 1)
    blur(rows, torch.from_numpy(blur_weights(sigmas, 1.0)))
    lines = [
        np.exp(-0.5 * ((np.arange(n) - n // 2) / s) ** 2) for n, s in zip(image.shape, (0.5, 0.8, 1.0), strict=True)
    ]
    x, y, z = (line / line.sum() for line in lines)
    assert np.allclose(rows[1].numpy(), x[:, None, None] * y[:, None] * z, atol=1e-6)


def test_blur_takes_a_patch_as_mirrored_at_its_edges_as_scipy_does_however_thin_it_is():
    from scipy.ndimage import gaussian_filter

    image = np.random.default_rng(0).random((9, 3, 1), dtype=np.float32)
    theirs = gaussian_filter(image.astype(np.float64), 1.5, mode="mirror", truncate=6.0)
    ours = torch.from_numpy(image)
    blur(ours[None], torch.from_numpy(blur_weights(np.full((1, 3), 1.5), 1.5)))
    assert np.allclose(ours.numpy(), theirs, atol=1e-6)


def test_a_coarser_scan_is_torchs_nearest_then_linear_interpolation():
    from torch.nn.functional import interpolate

    volume = torch.rand(1, 1, 20, 17, 9, generator=torch.Generator().manual_seed(4))
    for scale, axes in ((0.5, (0, 1, 2)), (0.73, (0, 1, 2)), (0.6, (0, 1)), (1.0, (0, 1, 2))):
        shape = [round(n * scale) if axis in axes else n for axis, n in enumerate(volume.shape[2:])]
        coarse = interpolate(volume, size=shape, mode="nearest-exact")
        theirs = interpolate(coarse, size=volume.shape[2:], mode="trilinear", align_corners=False)
        ours = volume[0, 0].clone()
        lower_resolution(ours, scale, axes)
        assert np.allclose(ours.numpy(), theirs[0, 0].numpy(), atol=1e-5), scale


def test_powers_of_the_inverted_image_keep_its_mean_and_deviation():
    image = np.random.default_rng(0).gamma(2.0, size=(9, 9, 9)).astype(np.float32)
    inverted = -image
    low, span = inverted.min(), np.ptp(inverted)
    expected = -(((inverted - low) / span) ** 1.3 * span + low)  # the formula of nnU-Net's GammaTransform
    expected = (expected - expected.mean()) / expected.std() * image.std() + image.mean()
    rows = torch.from_numpy(np.stack([image, np.full_like(image, 0.1)]))
    raise_to_power(rows, torch.full((2, 1, 1, 1), 1.3), Gamma(keep_mean_and_deviation=True), inverted=True)
    assert np.allclose(rows[0].numpy(), expected, atol=1e-4)
    assert (rows[1] == np.float32(0.1)).all()  # which no rounding may change


def test_balanced_exponents_are_below_1_as_often_as_above():
    drawn = draw_exponents(Gamma(exponent=(0.7, 1.5), draw="balanced"), 4000, np.random.default_rng(0))
    assert np.mean(drawn < 1) == pytest.approx(0.5, abs=0.03)
    assert (drawn[drawn < 1].mean(), drawn[drawn > 1].mean()) == (
        pytest.approx(0.85, abs=0.01),
        pytest.approx(1.25, abs=0.02),
    )


def test_channels_are_blurred_and_coarsened_as_often_as_it_is_said():
    settings = Augmentation(blur=Blur(probability=0.4), low_resolution=LowResolution(probability=0.5))
    image = np.random.default_rng(0).random((2, 4, 4, 4), dtype=np.float32)
    rng = np.random.default_rng(3)
    differs = [(changed(image, settings, rng) != image).any(axis=(1, 2, 3)) for _ in range(1200)]
    # Each change reaches a channel with half of its probability; coarsening four voxels to four changes nothing.
    no_coarser = 0.25  # scales of 0.875 … 1
    assert np.mean(differs) == pytest.approx(1 - (1 - 0.2) * (1 - 0.25 * (1 - no_coarser)), abs=0.03)


def test_noise_has_its_deviation_and_a_constant_image_survives_gamma():
    image = np.ones((1, 30, 30, 30), np.float32)
    stretched = Augmentation(gamma=Gamma(probability=1.0), contrast=Contrast(probability=1.0))
    assert (changed(image, stretched, np.random.default_rng(0)) == 1).all()
    noisy = changed(image, Augmentation(noise=Noise(probability=1.0, deviation=0.5)), np.random.default_rng(3))
    drawn = np.random.default_rng(3)
    drawn.random()
    assert noisy.std() == pytest.approx(drawn.uniform(0, 0.5), rel=0.02)


# ---- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_epoch_and_place(synthetic):
    data = synthetic(augmentation=EVERYTHING, steps_per_epoch=5).build(context())
    epoch = list(data.train(2, 0))
    assert len(epoch) == data.batches_per_epoch == 5
    assert same(data.train(2, 3), epoch[3:])
    assert same(synthetic(augmentation=EVERYTHING, steps_per_epoch=5).build(context()).train(2, 0), epoch)
    assert not same(data.train(3, 0), epoch)
    assert not same(synthetic(augmentation=EVERYTHING, steps_per_epoch=5).build(context(seed=4)).train(2, 0), epoch)


def test_batches_are_the_same_bits_with_0_and_2_workers_and_global_generators_stay(synthetic):
    settings = {"augmentation": EVERYTHING, "steps_per_epoch": 6}
    alone = list(synthetic(**settings).build(context()).train(0, 0))
    torch.manual_seed(5)
    np.random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    data = synthetic(workers=2, **settings).build(context())
    assert same(data.train(0, 0), alone)
    assert same(data.train(0, 2), alone[2:])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(("batch_size", "share", "expected"), [(2, 0.33, 1), (3, 0.33, 1), (9, 0.33, 3), (4, 0.0, 0)])
def test_a_share_of_every_batch_is_centred_on_a_class(tmp_path, batch_size, share, expected):
    centred = []
    for world in (1, batch_size):
        cases = SyntheticSegmentation(
            num_cases=4,
            size=(30, 30, 30),
            patch_size=(1, 1, 1),
            batch_size=batch_size,
            steps_per_epoch=40,
            foreground_probability=share,
            foreground_sampling="share",
            cache=Cache(folder=tmp_path),
        )
        batches = zip(*(cases.build(context(rank=rank, world=world)).train(0, 0) for rank in range(world)), strict=True)
        centred.append([torch.cat([batch["label"].flatten() for batch in of_all]) > 0 for of_all in batches])
    assert all(torch.equal(one, other) for one, other in zip(*centred, strict=True))
    last = torch.stack(centred[0])[:, batch_size - expected :]
    others = torch.stack(centred[0])[:, : batch_size - expected]
    assert last.all()
    assert others.float().mean() < 0.3


def test_the_workers_go_on_with_the_next_epoch_and_begin_anew_elsewhere(synthetic):
    data = synthetic(workers=1, steps_per_epoch=3).build(context())
    begun, asked = data._workers, []

    def workers(places):
        places = list(itertools.islice(places, 9))
        asked.append(places[:4])
        return begun(places)

    data._workers = workers
    alone = synthetic(steps_per_epoch=3).build(context())
    assert same([*data.train(0, 1), *data.train(1, 0)], [*alone.train(0, 1), *alone.train(1, 0)])
    assert same(data.train(0, 2), alone.train(0, 2))
    assert same(data.train(1, 0), alone.train(1, 0))
    begun.end()
    places = [[(0, 1), (0, 2), (1, 0), (1, 1)], [(0, 2), (1, 0), (1, 1), (1, 2)]]
    assert asked == [[(*place, 0) for place in each] for each in places]


def test_an_epoch_that_is_broken_off_leaves_nothing_behind_in_the_workers(synthetic):
    data = synthetic(workers=2, steps_per_epoch=6).build(context())
    begun = data.train(0, 0)
    next(begun)
    begun.close()
    assert same(data.train(1, 4), synthetic(steps_per_epoch=6).build(context()).train(1, 4))


def test_the_number_of_threads_changes_no_bit(synthetic):
    data = synthetic(augmentation=EVERYTHING, patch_size=(40, 40, 40)).build(context())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = list(data.train(0, 0))
        torch.set_num_threads(2)
        assert same(data.train(0, 0), one)
    finally:
        torch.set_num_threads(threads)


def processes_below() -> list[int]:
    """Return the processes that this one has begun and that still run."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def test_workers_leave_signals_to_the_training(synthetic):
    before = processes_below()
    data = synthetic(workers=2, steps_per_epoch=40, batch_size=1).build(context())
    batches = data.train(0, 0)
    next(batches)
    children = [each for each in processes_below() if each not in before]
    assert len(children) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for child in children:
            os.kill(child, number)
    time.sleep(0.1)
    assert len(list(batches)) == 39


LEAVING = """
import sys
from pathlib import Path
import torch
from trainkit import Context
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.data.synthetic import SyntheticSegmentation

if __name__ == "__main__":
    cache = Cache(folder=Path(sys.argv[1]))
    small = {"size": (16, 16, 16), "patch_size": (8, 8, 8)}
    settings = SyntheticSegmentation(workers=2, steps_per_epoch=50, cache=cache, **small)
    data = settings.build(Context(seed=3, device=torch.device("cpu"), folder=Path()))
    batches = data.train(0, 0)
    next(batches)
    if sys.argv[2] == "failing":
        raise RuntimeError("on purpose")
    if sys.argv[2] == "after an epoch":
        print(len(list(batches)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in an epoch", "after an epoch", "failing"])
def test_a_process_with_workers_comes_to_its_end(tmp_path, how, warm):
    ended = warm.start("-c", LEAVING, str(tmp_path), how, folder=tmp_path, apart=True)
    assert ended.wait(60) == (1 if how == "failing" else 0), ended.stderr
    assert ("on purpose" in ended.stderr) if how == "failing" else not ended.stderr


@pytest.fixture
def _deaths_of_others_are_not_listened_to():
    """Another test's loader made torch listen to any process's death, for as long as this process lives."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("_deaths_of_others_are_not_listened_to")
def test_a_worker_that_dies_is_told_in_one_message(synthetic):
    before = processes_below()
    data = synthetic(workers=1, steps_per_epoch=400, batch_size=1).build(context())
    batches = data.train(0, 0)
    next(batches)
    (child,) = (each for each in processes_below() if each not in before)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a process that prepares batches died .* lower data\.workers"):
        list(batches)


def test_a_pass_draws_each_case_once_and_the_last_batch_is_full(synthetic):
    data = synthetic(num_cases=9, batch_size=2, split=SameCases()).build(context())
    assert data.batches_per_epoch == 5
    seen = torch.cat([batch["index"] for batch in data.train(0, 0)]).tolist()
    assert sorted(seen[:9]) == list(range(9))
    assert len(seen) == 10
    other = torch.cat([batch["index"] for batch in data.train(1, 0)]).tolist()
    assert other[:9] != seen[:9]


def test_the_processes_of_a_run_share_what_one_alone_would_draw(synthetic):
    settings = {"num_cases": 8, "split": SameCases(), "augmentation": EVERYTHING}
    alone = list(synthetic(batch_size=2, **settings).build(context()).train(0, 0))
    ranks = [list(synthetic(batch_size=2, **settings).build(context(rank=r, world=2)).train(0, 0)) for r in (0, 1)]
    assert len(alone) == len(ranks[0]) == len(ranks[1])
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(whole["image"], torch.cat([first["image"], second["image"]]))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_shares_of_a_split_are_disjoint_of_one_size_and_together_the_split(synthetic, world, split):
    settings = synthetic(num_cases=8, split=SameCases(), batch_size=3)
    shares = [
        [
            (int(batch["index"]), batch["case"])
            for batch in settings.build(context(rank=rank, world=world)).evaluate(split)
        ]
        for rank in range(world)
    ]
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share == sorted(share) for share in shares)
    assert sorted(item for share in shares for item in share) == [(n, f"synthetic_{n:03d}") for n in range(8)]


def test_targets_are_of_the_agreed_shape_and_type(tmp_path, synthetic):
    exclusive = next(synthetic(batch_size=2).build(context()).train(0, 0))
    assert (exclusive["image"].shape, exclusive["image"].dtype) == ((2, 1, 12, 12, 12), torch.float32)
    assert (exclusive["label"].shape, exclusive["label"].dtype) == ((2, 1, 12, 12, 12), torch.int64)
    folder = made_up.brats(tmp_path / "brats")
    data = BraTS(path=folder, cache=Cache(folder=tmp_path), patch_size=(8, 8, 8)).build(context())
    regions = next(data.train(0, 0))
    assert (regions["image"].shape, regions["label"].shape) == ((2, 4, 8, 8, 8), (2, 3, 8, 8, 8))
    assert regions["label"].dtype == torch.float32
    assert set(regions["label"].unique().tolist()) <= {0.0, 1.0}
    whole, core, enhancing = regions["label"].unbind(1)
    assert (whole >= core).all()
    assert (core >= enhancing).all()


def of_overlapping_classes(shape, num_codes, num_classes):
    rng = np.random.default_rng(num_codes)
    table = rng.integers(0, 2, (num_codes, num_classes + 1)).astype(np.uint8)
    codes = rng.integers(0, num_codes, (2, *shape)).astype(np.uint8)
    codes.flat[:2] = num_codes - 1
    return torch.from_numpy(codes), torch.from_numpy(table), [table[each].transpose(3, 0, 1, 2) for each in codes]


@pytest.mark.parametrize(
    ("shape", "num_codes"),
    [((16, 16, 16), 4), ((15, 17, 19), 4), ((64, 64, 32), 255), ((64, 64, 32), 256), ((8, 8, 8), 256)],
)
def test_targets_of_overlapping_classes_are_rows_of_the_table_however_many_codes_there_are(shape, num_codes):
    codes, table, expected = of_overlapping_classes(shape, num_codes, num_classes=3)
    for codes_XYZ, expected_KXYZ in zip(codes, expected, strict=True):
        assert np.array_equal(target(codes_XYZ, table, 3), expected_KXYZ[:3])
        assert np.array_equal(target(codes_XYZ.int(), table, 3), expected_KXYZ[:3])
        assert np.array_equal(target(codes_XYZ.flip(0).mT, table, 3), expected_KXYZ[:3, ::-1].swapaxes(2, 3))


def test_targets_of_classes_that_change_seldom_from_code_to_code_are_rows_of_the_table():
    none, all_of_them, background, last = [0] * 6, [1] * 6, [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]
    table = torch.tensor([none, all_of_them, background, last, [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0]]).T.byte()
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (5, 7, 9)).astype(np.uint8))
    assert torch.equal(target(codes, table, 6), table[codes.long()].permute(3, 0, 1, 2).float())
    assert target(codes[:0], table, 6).shape == (6, 0, 7, 9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_targets_of_exclusive_classes_are_codes_without_ignored_ones(dtype):
    codes = torch.arange(8, dtype=dtype).reshape(2, 2, 2)
    assert target(codes, None, 5)[0].flatten().tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert target(codes, None, 255)[0].flatten().tolist() == list(range(8))


@pytest.mark.parametrize("place", [0, 1])
def test_a_code_that_a_class_table_does_not_have_is_no_background(place):
    codes, table, _ = of_overlapping_classes((16, 16, 16), 4, num_classes=2)
    codes[0].view(-1)[place] = 200
    try:
        found = target(codes[0], table, 2)
    except (IndexError, RuntimeError):
        return
    assert found[:, 0, 0, place].isnan().all()


@pytest.mark.parametrize("on", ["workers", "device"])
@pytest.mark.parametrize("overlap", [False, True])
def test_label_codes_travel_and_targets_are_made_where_the_training_is(tmp_path, synthetic, on, overlap):
    settings = {"regions": {"core": (1,), "whole": (1, 2)}} if overlap else {}
    data = synthetic(batch_size=2, augmentation=Augmentation(on=on), **settings).build(context())
    assert data.exclusive is not overlap
    sent = data._batches[0, 0, 0]
    assert "label" not in sent
    voxels = 2 * 12**3
    image = 2 if on == "device" else 4  # bytes
    assert voxels * (image + 1) < len(pickle.dumps(sent)) < voxels * (image + 1) + 4096
    finished = data._batches.finished(sent, torch.device("cpu"))
    assert set(finished) == {"index", "image", "label"}
    assert same([finished], [next(data.train(0, 0))])


def test_patches_larger_than_volumes_are_padded_with_background(tmp_path):
    folder = made_up.msd(tmp_path / "msd", cases=2)
    settings = Preprocessing(normalization="none")
    data = MSD(
        path=folder, cache=Cache(folder=tmp_path), patch_size=(32, 32, 32), split=SameCases(), preprocessing=settings
    ).build(context())
    batch = next(data.train(0, 0))
    inside = (slice(6, 26), slice(4, 28), slice(7, 25))
    for index, image, label in zip(batch["index"], batch["image"], batch["label"], strict=True):
        whole = next(b for b in data.evaluate("val") if b["index"] == index)
        assert torch.equal(image[(0, *inside)], whole["image"][0, 0])
        assert image.sum() == pytest.approx(whole["image"].sum().item(), rel=1e-5)
        assert label.sum() == whole["label"].sum()


def test_a_case_or_split_that_is_not_there_is_told(synthetic):
    data = synthetic().build(context())
    with pytest.raises(DataError, match='there is no split "vall"; did you mean "val"'):
        list(data.evaluate("vall"))
    with pytest.raises(DataError, match='there is no case "synthetic_01"; did you mean "synthetic_0'):
        data.truth("synthetic_01")


def test_a_case_without_any_class_is_trained_on_and_places_of_regions_are_where_they_are(tmp_path):
    folder = made_up.brats(tmp_path / "brats", cases=2)
    made_up.save(next(folder.glob("*00001/*_seg.nii.gz")), np.zeros(made_up.SIZE, np.uint8))
    settings = {"cache": Cache(folder=tmp_path), "split": SameCases(), "patch_size": (5, 5, 5)}
    data = BraTS(path=folder, foreground_probability=1.0, steps_per_epoch=20, **settings).build(context())
    for batch in data.train(0, 0):
        for index, label in zip(batch["index"], batch["label"], strict=True):
            assert bool(label.any()) == (index == 0)
    many = BraTS(path=folder, foreground_probability=1.0, steps_per_epoch=300, **settings).build(context())
    plain = list(many.train(0, 0))
    centres = torch.cat([batch["label"][batch["index"] == 0] for batch in plain])[:, :, 2, 2, 2]
    whole = centres[:, 0].mean().item()
    assert whole > 0.95  # only at the volume's border does a patch not have its voxel in the middle
    assert centres[:, 2].mean().item() > 1 / 3  # one in three is drawn from the enhancing tumour itself


def test_what_the_data_finds_out_is_said_and_kept_in_the_log(tmp_path, capsys):
    folder = made_up.brats(tmp_path / "brats", cases=2)
    console = Console()
    data = BraTS(path=folder, cache=Cache(folder=tmp_path / "cache"), split=SameCases())
    with console.capture_logging():
        data.build(context())
    console.log_to(tmp_path / "log.txt")
    console.say("and then")
    said = capsys.readouterr().out
    log = (tmp_path / "log.txt").read_text()
    assert re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  ", "", log, flags=re.M) == said
    assert said.startswith("BraTS 2021, recognised from file names")
    assert "preprocessed 2 of 2 cases into" in said
