"""Labels are resampled by votes: they stay where the image is, and thin structures are not lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, one_hot

from trainkit_segmentation.preparing.label_votes import resample_label_codes

RATIOS = [(2, 2, 2), (3, 3, 3), (1.5, 1.5, 1.5), (4, 4, 1), (1.37, 2.6, 0.8), (0.5, 0.5, 0.5)]
SHAPE = (40, 37, 34)
AT = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in SHAPE], indexing="ij"), -1)


def balls(seed: int) -> np.ndarray:
    """Label codes of two balls, the second partly behind the first."""
    rng = np.random.default_rng(seed)
    codes = np.zeros(SHAPE, np.uint8)
    for code in (2, 1):
        codes[((AT - np.array(SHAPE) / 2 - rng.uniform(-4, 4, 3)) ** 2).sum(-1) < rng.uniform(5, 11) ** 2] = code
    return codes


def other_size(ratio) -> tuple[int, ...]:
    return tuple(round(n / r) for n, r in zip(SHAPE, ratio, strict=True))


def linear(masks_NXYZ: torch.Tensor, shape) -> torch.Tensor:
    return interpolate(masks_NXYZ[None].double(), size=tuple(shape), mode="trilinear", align_corners=False)[0]


def majority(codes: np.ndarray, shape) -> np.ndarray:
    """One-hot, linear, argmax."""
    return linear(one_hot(torch.from_numpy(codes).long()).movedim(-1, 0), shape).argmax(0).numpy()


def ours_alone(codes: np.ndarray, shape) -> np.ndarray:
    return resample_label_codes(codes, None, shape)


def dice(codes: np.ndarray, other: np.ndarray, code: int) -> float:
    return float(2 * ((codes == code) & (other == code)).sum() / ((codes == code).sum() + (other == code).sum()))


@pytest.mark.parametrize("ratio", RATIOS)
def test_there_and_back_keeps_at_least_what_one_hot_linear_votes_keep(ratio):
    shape = other_size(ratio)
    gains = []
    for seed in range(6):
        codes = balls(seed)
        ours, plain = (majority(found(codes, shape), SHAPE) for found in (ours_alone, majority))
        gains += [dice(ours, codes, code) - dice(plain, codes, code) for code in np.unique(codes[codes > 0])]
    assert np.mean(gains) >= 0
    assert min(gains) > -0.04  # one voxel more or less, of a structure of twenty
    if ratio == (2, 2, 2):
        assert np.mean(gains) > 0.01


@pytest.mark.parametrize("ratio", RATIOS)
def test_centres_stay_where_they_are_in_no_preferred_direction(ratio):
    shape = other_size(ratio)
    moved = []
    for seed in range(12):
        codes = balls(seed)
        for code in np.unique(codes[codes > 0]):
            new = (np.argwhere(resample_label_codes(codes, None, shape) == code) + 0.5) * np.array(SHAPE) / shape
            moved.append((new.mean(0) - AT[codes == code].mean(0)) / np.maximum(1, ratio))
    assert np.abs(np.median(moved, axis=0)).max() < 0.1  # the nearest voxel: 0.25 at ratio 2
    assert np.median(np.abs(moved)) < 0.1


@pytest.mark.parametrize("ratio", [1.7, 2, 2.6])
def test_a_structure_with_thin_and_thick_parts_keeps_its_centre_and_its_volume(ratio):
    shape = other_size((ratio,) * 3)
    moved = {"ours": [], "majority": []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        along = rng.normal(size=3)
        off = AT - np.array(SHAPE) / 2 - rng.uniform(-1, 1, 3)
        place = off @ along / np.linalg.norm(along)
        across = np.sqrt(np.maximum((off**2).sum(-1) - place**2, 0))
        club = (np.hypot(place + 8, across) < 5) | ((across < 1.2) & (np.abs(place) < 14))
        club = club.astype(np.uint8)
        for name, found in (("ours", ours_alone(club, shape)), ("majority", majority(club, shape))):
            new = (np.argwhere(found == 1) + 0.5) * np.array(SHAPE) / shape
            moved[name].append(np.abs(new.mean(0) - AT[club == 1].mean(0)).max() / ratio)
        assert ours_alone(club, shape).mean() == pytest.approx(club.mean(), rel=0.1)
    assert max(moved["ours"]) < 0.2
    assert np.mean(moved["ours"]) < 0.5 * np.mean(moved["majority"])


def test_a_mirrored_label_is_resampled_to_the_mirrored_result():
    codes = balls(0)
    for shape in ((20, 18, 17), (27, 37, 60)):
        for axes in ((0,), (1, 2), (0, 1, 2)):
            mirrored = resample_label_codes(np.ascontiguousarray(np.flip(codes, axes)), None, shape)
            assert np.array_equal(np.flip(mirrored, axes), resample_label_codes(codes, None, shape))


@pytest.mark.parametrize("ratio", [2, 1.5])
def test_thin_structures_are_not_lost(ratio):
    rng = np.random.default_rng(0)
    shape = other_size((ratio,) * 3)
    gains = []
    for _ in range(5):
        along = rng.normal(size=3)
        off = AT - np.array(SHAPE) / 2
        across = off - (off @ along)[..., None] * along / (along @ along)
        vessel = ((across**2).sum(-1) < 1).astype(np.uint8)
        kept = ours_alone(vessel, shape)
        assert kept.mean() > 0.75 * vessel.mean()
        back = [dice(majority(each, SHAPE), vessel, 1) for each in (kept, majority(vessel, shape))]
        gains.append(back[0] - back[1])
    assert min(gains) > -0.05
    assert np.mean(gains) > 0.02


def test_regions_get_the_votes_of_all_their_parts_and_stay_nested():
    table = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]], np.uint8)  # whole ⊇ core ⊇ enhancing
    rng = np.random.default_rng(1)
    smooth = linear(torch.from_numpy(rng.normal(size=(1, 8, 8, 8))), SHAPE)[0].numpy()
    codes = np.digitize(smooth, [0.2, 0.5, 0.9]).astype(np.uint8)
    shape = other_size((1.7, 1.7, 1.7))
    found = table[resample_label_codes(codes, table, shape)]
    votes = np.stack([linear(torch.from_numpy(table[codes][None, ..., k]), shape)[0].numpy() for k in range(3)], -1)
    assert (found[..., 0] >= found[..., 1]).all()
    assert (found[..., 1] >= found[..., 2]).all()
    assert (found == (votes > 0.5))[np.abs(votes - 0.5) > 0.3].mean() > 0.99
    assert (found == (votes > 0.5)).mean() > 0.97
    assert np.allclose(found.mean((0, 1, 2)), table[codes].mean((0, 1, 2)), rtol=0.02)


def test_nothing_changes_on_the_same_grid_and_in_volumes_of_one_code():
    codes = balls(3)
    assert np.array_equal(resample_label_codes(codes, None, SHAPE), codes)
    for code in (0, 2):
        one = np.full((5, 6, 7), code, np.int32)
        assert np.array_equal(resample_label_codes(one, None, (9, 1, 3)), np.full((9, 1, 3), code))
        assert resample_label_codes(one, None, (9, 1, 3)).dtype == np.int32
