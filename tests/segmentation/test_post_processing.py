"""The post-processing that is chosen is the one that trying every possibility on whole masks would choose."""

from __future__ import annotations

from collections import deque
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from trainkit_segmentation.evaluation.post_processing import CANDIDATES, NOTHING, choose, held_out_mask
from trainkit_segmentation.prediction.cleaning import Cleaning

Array = np.ndarray[Any, Any]


def blobs(seed: int, level: float = 0.12) -> Array:
    rng = np.random.default_rng(seed)
    mask: Array = gaussian_filter(rng.normal(size=(16, 18, 14)), 1.2) > level
    return mask


def parts_by_walking(mask_XYZ: Array) -> list[list[tuple[int, ...]]]:
    """Return the voxels of each part, found by walking from voxel to neighbour."""
    left = {tuple(map(int, each)) for each in np.argwhere(mask_XYZ)}
    parts = []
    while left:
        part, queue = [], deque([min(left)])
        left.discard(queue[0])
        while queue:
            voxel = queue.popleft()
            part.append(voxel)
            for step in product((-1, 0, 1), repeat=3):
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.discard(near)
                    queue.append(near)
        parts.append(part)
    return parts


def dice(found: Array, true: Array) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum())) if found.any() or true.any() else 1.0


def dice_by_walking(found: Array, true: Array, voxel_ml: float) -> list[float]:
    """Return the Dice without a removal, and after each candidate."""
    parts = parts_by_walking(found)
    scores = []
    for removal in (NOTHING, *CANDIDATES):
        kept = [part for part in parts if len(part) * voxel_ml >= removal.smallest_ml]
        kept = [max(kept, key=len)] if removal.keep_largest and kept else kept
        mask = np.zeros_like(found)
        for voxel in (voxel for part in kept for voxel in part):
            mask[voxel] = True
        scores.append(dice(mask, true))
    return scores


def test_the_choice_is_the_best_of_all_that_are_tried_on_whole_masks() -> None:
    voxel_ml = 0.004
    pairs = [(blobs(seed, 0.1), blobs(seed, 0.1) & blobs(seed + 50, -0.05)) for seed in range(4)]
    pairs.append((blobs(9, 0.22), np.zeros((16, 18, 14), dtype=bool)))  # the truth has nothing
    means = np.mean([dice_by_walking(*pair, voxel_ml) for pair in pairs], axis=0)
    cases = [held_out_mask(*pair, voxel_ml) for pair in pairs]
    choice = choose(cases)
    assert (choice.before, choice.after) == pytest.approx((means[0], means.max()))
    assert choice.removal == (NOTHING, *CANDIDATES)[int(means.argmax())] != NOTHING
    assert choose(cases[::-1]) == choice


def test_nothing_is_removed_unless_that_helps() -> None:
    mask = blobs(1)
    assert choose([held_out_mask(mask, mask, 0.004)]) == (NOTHING, 1.0, 1.0)
    empty = np.zeros_like(mask)
    assert choose([held_out_mask(empty, mask, 0.004)]) == (NOTHING, 0.0, 0.0)


def test_a_part_is_judged_by_its_voxels_that_count_and_removed_whole() -> None:
    found, ignored = np.zeros((9, 4, 4), dtype=bool), np.zeros((9, 4, 4), dtype=bool)
    found[0:5, 1, 1] = found[7:9, 1, 1] = True  # parts of five and of two voxels
    ignored[1:4] = True
    true = found & ~ignored
    case = held_out_mask(found, true, 1.0, ignored)
    assert case.dice(NOTHING) == 1
    assert case.dice(Cleaning(smallest_ml=5.0)) == case.dice(Cleaning(keep_largest=True)) == 2 * 2 / (2 + 4)


def test_voxels_that_share_a_corner_are_one_part() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    case = held_out_mask(mask, mask, 1.0)
    assert sorted(case.voxels_P) == sorted(case.overlap_P) == [1, 2]
    assert case.dice(Cleaning(keep_largest=True)) == case.dice(Cleaning(smallest_ml=2.0)) == 0.8
