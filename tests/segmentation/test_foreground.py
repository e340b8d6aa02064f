"""Images are resampled by splines, and normalised by the intensities of the classes in the training cases alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from scipy.ndimage import map_coordinates

from trainkit import DataError, Problem
from trainkit_segmentation.cases.case import Volume
from trainkit_segmentation.data.inspection import inspect
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.cubic import stretch_cubic
from trainkit_segmentation.preparing.foreground import pooled, quantiles_of_foreground
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare


def at_centres(shape: tuple[int, ...], new: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    """Return where the centres of new voxels lie, in voxels of the old grid over the same extent."""
    axes = [(np.arange(n) + 0.5) * old / n - 0.5 for old, n in zip(shape, new, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij"))


def test_cubic_resampling_is_spline_interpolation_at_the_centres_of_the_new_voxels() -> None:
    image = np.random.default_rng(0).normal(size=(2, 11, 9, 8)).astype(np.float32)
    found = stretch_cubic(image, (17, 9, 5), (1.0, 1.0, 1.0), (11 / 17, 1.0, 8 / 5))
    for channel, ours in zip(image, found, strict=True):
        theirs = map_coordinates(channel, at_centres((11, 9, 8), (17, 9, 5)), order=3, mode="nearest")
        assert np.allclose(ours, np.clip(theirs, channel.min(), channel.max()), atol=1e-5)


def test_thick_slices_are_resampled_by_splines_within_and_linearly_across() -> None:
    image = np.random.default_rng(1).normal(size=(1, 10, 9, 4)).astype(np.float32)
    found = stretch_cubic(image, (15, 9, 7), (1.0, 1.0, 5.0), (10 / 15, 1.0, 20 / 7))[0]
    within = np.stack(
        [
            np.clip(map_coordinates(one, at_centres((10, 9), (15, 9)), order=3, mode="nearest"), one.min(), one.max())
            for one in image[0].transpose(2, 0, 1)
        ],
        axis=-1,
    )
    across = [np.interp((np.arange(7) + 0.5) * 4 / 7 - 0.5, np.arange(4), line) for line in within.reshape(-1, 4)]
    assert np.allclose(found, np.reshape(across, (15, 9, 7)), atol=1e-5)


def test_a_smooth_image_is_kept_better_by_splines_and_stays_where_it_is() -> None:
    def wave(*at: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x, y, z = at
        return np.sin(0.9 * x) * np.cos(0.7 * y) * np.sin(0.8 * z + 1)

    shape, new = (20, 20, 20), (30, 30, 30)
    volume = Volume(wave(*np.mgrid[:20, :20, :20])[None].astype(np.float32), np.zeros(shape, np.uint8), None, np.eye(4))
    expected = wave(*at_centres(shape, new))
    errors = {}
    for resampling in ("linear", "cubic"):
        settings = Preprocessing(spacing_mm=(2 / 3,) * 3, resampling=resampling, normalization="none")
        made = prepare(volume, settings, 1).image_CXYZ[0]
        errors[resampling] = np.abs(made - expected)[6:-6, 6:-6, 6:-6].max()
    assert errors["cubic"] < 0.25 * errors["linear"]


def volume_of(seed: int, size: int) -> Volume:
    rng = np.random.default_rng(seed)
    codes = (rng.random((size, 12, 10)) < 0.4).astype(np.uint8)
    image = rng.gamma(2.0, 100.0, (2, size, 12, 10)) + 50 * seed
    return Volume(image.astype(np.float32), codes, None, np.eye(4))


def test_pooled_intensities_weigh_each_case_alike() -> None:
    volumes = [volume_of(seed, size) for seed, size in ((0, 140), (1, 70), (2, 310))]
    found = pooled([quantiles_of_foreground(volume, 2) for volume in volumes])
    for channel, (lower, upper, mean, deviation) in enumerate(found):
        of_cases = [volume.image_CXYZ[channel][volume.label_codes_XYZ > 0].astype(float) for volume in volumes]
        expected = np.mean([values.mean() for values in of_cases])
        square = np.mean([(values**2).mean() for values in of_cases])
        drawn = np.concatenate([np.random.default_rng(5).choice(values, 200_000) for values in of_cases])  # as nnU-Net
        assert mean == pytest.approx(expected, rel=1e-3)
        assert deviation == pytest.approx(np.sqrt(square - expected**2), rel=1e-3)
        assert (lower, upper) == pytest.approx(tuple(np.percentile(drawn, (0.5, 99.5))), rel=0.02)


def test_overlapping_classes_are_foreground_together_and_a_case_without_any_counts_for_nothing() -> None:
    one = volume_of(0, 9)
    table = np.array([[0, 0], [1, 0], [0, 0]], np.uint8)
    codes = np.where(one.label_codes_XYZ > 0, 1, 2).astype(np.uint8)
    overlapping = Volume(one.image_CXYZ, codes, table, np.eye(4))
    empty = Volume(one.image_CXYZ, np.zeros_like(codes), None, np.eye(4))
    assert np.array_equal(quantiles_of_foreground(overlapping, 2), quantiles_of_foreground(one, 2))
    assert quantiles_of_foreground(empty, 2).shape == (2, 0)
    alone = pooled([quantiles_of_foreground(one, 2)])
    assert pooled([quantiles_of_foreground(empty, 2), quantiles_of_foreground(one, 2)]) == alone
    with pytest.raises(DataError, match="no training case has a voxel of a class"):
        pooled([quantiles_of_foreground(empty, 2)])


def test_normalisation_is_that_of_nnunet_for_ct() -> None:
    volume = volume_of(3, 8)
    numbers = ((100.0, 400.0, 230.0, 75.0), (50.0, 300.0, 180.0, 60.0))
    made = prepare(volume_of(3, 8), Preprocessing(normalization="foreground", intensities=numbers), 1).image_CXYZ
    for channel, ours, (lower, upper, mean, deviation) in zip(volume.image_CXYZ, made, numbers, strict=True):
        assert np.allclose(ours, (np.clip(channel, lower, upper) - mean) / deviation, atol=2e-3)  # half precision
    with pytest.raises(DataError, match=r"2 channels, but data\.preprocessing\.intensities has 1"):
        prepare(volume, Preprocessing(normalization="foreground", intensities=numbers[:1]), 1)


@pytest.mark.parametrize(
    "given",
    [
        {"intensities": ((0.0, 1.0, math.nan, 1.0),)},
        {"intensities": ((0.0, 1.0, 0.5, 0.0),)},
        {"intensities": ((-math.inf, 1.0, 0.5, 1.0),)},
        {"window": (0.0, math.inf)},
    ],
)
def test_numbers_that_would_leave_nothing_of_an_image_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        Preprocessing(**given)


@pytest.fixture
def cases(tmp_path: Path) -> MSD:
    folder = made_up.msd(tmp_path / "cases")
    return MSD(
        path=folder,
        preprocessing=Preprocessing(normalization="foreground"),
        patch_size=(8, 8, 8),
        cache=Cache(folder=tmp_path / "cache"),
    )


def facts_of(settings: MSD) -> dict[str, Any]:
    return json.loads(json.dumps(opened(settings).facts()))


def test_a_channel_that_is_the_same_in_all_classes_is_refused(cases: MSD) -> None:
    for path in (cases.path / "imagesTr").iterdir():
        made_up.save(path, np.full(nibabel.load(path).shape, 7.0, np.float32))
    with pytest.raises(DataError, match=r'is 7 nearly everywhere .* choose "zscore"'):
        facts_of(cases)


def test_the_numbers_are_those_of_the_training_cases_and_every_checkpoint_has_them(cases: MSD) -> None:
    found = facts_of(cases)["preprocessing"]["intensities"]
    listing = cases.cases()
    names = cases.split.divide({case.name: case.subject for case in listing.cases})
    assert len(names["val"]) > 0
    train = [case.read(listing.labels) for case in listing.cases if case.name in names["train"]]
    assert found == [list(each) for each in pooled([quantiles_of_foreground(volume, 2) for volume in train])]
    everything = [case.read(listing.labels) for case in listing.cases]
    assert found != [list(each) for each in pooled([quantiles_of_foreground(volume, 2) for volume in everything])]


def test_what_is_checked_beforehand_is_what_the_run_takes(cases: MSD, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [each for each in inspect(cases, "all") if isinstance(each, Problem)]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("trainkit_segmentation.preparing.cache_filling.prepare", never)
    facts_of(cases)
