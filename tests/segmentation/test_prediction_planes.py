"""Scores of a volume, planes at a time: held against MONAI, against torch's interpolation, and against thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor

from trainkit_segmentation.prediction.cleaning import Cleaning
from trainkit_segmentation.prediction.cleaning_live import unlikely_parts
from trainkit_segmentation.prediction.label_values import label_values
from trainkit_segmentation.prediction.own_planes import stretch_planes
from trainkit_segmentation.prediction.windows import Windows, stream_scores, thinnest_axis
from trainkit_segmentation.preparing.grid import stretch

CPU = torch.device("cpu")


def network(image_BCXYZ: Tensor) -> Tensor:
    """Scores that depend on the place in the window, so that a window at another place gives others."""
    ramp_XYZ = torch.linspace(0, 1, image_BCXYZ[0, 0].numel()).reshape(image_BCXYZ.shape[2:])
    return torch.cat([image_BCXYZ + ramp_XYZ, image_BCXYZ * ramp_XYZ, image_BCXYZ.roll(1, 3)], 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "size", "overlap", "blending"),
    [
        ((20, 13, 11), (8, 6, 7), 0.5, "gaussian"),
        ((9, 17, 4), (8, 5, 6), 0.25, "constant"),  # thinner than a window
        ((8, 1, 30), (8, 8, 8), 0.7, "gaussian"),  # one slice
    ],
)
def test_scores_are_those_of_monai(
    shape: tuple[int, int, int], size: tuple[int, int, int], overlap: float, blending: str, axis: int
) -> None:
    image_CXYZ = torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))
    expected_KXYZ = SlidingWindowInferer(size, 1, overlap, blending)(image_CXYZ[None], network)[0]
    windows = Windows(size, overlap, blending, at_once=3)
    told: list[int] = []
    planes = stream_scores(image_CXYZ, network, windows, axis, CPU, keep_on=CPU, tell=told.append)
    found_KXYZ = torch.cat([each.clone() for each in planes]).movedim(0, 1 + axis)
    torch.testing.assert_close(found_KXYZ, expected_KXYZ, rtol=1e-5, atol=1e-5)
    assert told[-1] == windows.count(shape)


def test_rows_of_windows_lie_across_the_axis_on_which_they_hold_the_fewest_voxels() -> None:
    assert thinnest_axis((512, 512, 400), (96, 96, 96)) == 0
    assert thinnest_axis((512, 512, 400), (96, 96, 16)) == 2


@pytest.mark.parametrize(("old", "new"), [((7, 5, 4), (7, 5, 4)), ((7, 5, 4), (13, 3, 4)), ((9, 4, 1), (4, 4, 5))])
def test_planes_are_resampled_as_the_whole_volume_is(old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    scores_KXYZ = torch.randn(3, *old, generator=torch.Generator().manual_seed(1))
    memory = torch.empty(2, 3, *old[1:])

    def planes():  # whoever makes planes uses the memory again
        for begin in range(0, old[0], 2):
            part = scores_KXYZ[:, begin : begin + 2].movedim(1, 0)
            memory[: len(part)] = part
            yield memory[: len(part)]
            memory.fill_(float("nan"))

    found = torch.cat(list(stretch_planes(planes(), old[0], new[0], new[1:]))).movedim(0, 1)
    torch.testing.assert_close(found, stretch(scores_KXYZ, new), rtol=1e-5, atol=1e-5)


def test_labels_are_the_values_of_the_training_data() -> None:
    values = label_values(("liver", "tumour"), True, {0: (), 3: ("liver",), 700: ("tumour",), 9: ()})
    assert values is not None
    scores_PKUV = torch.tensor([[0.0, 1, 0], [2, 1, 0], [0, 0, 5]])[:, :, None, None]
    found = values.of(scores_PKUV, are_logits=True)
    assert found[:, 0, 0].tolist() == [3, 0, 700]
    assert found.dtype == np.int16
    assert values.dropped == {9: 0}


@pytest.mark.parametrize(("enhancing", "values"), [(4, (0, 2, 1, 4)), (3, (0, 2, 1, 3))])
def test_overlapping_regions_become_the_numbers_of_their_edition(enhancing: int, values: tuple[int, ...]) -> None:
    regions = ("whole", "core", "enhancing")
    named = {0: (), 1: regions[:2], 2: regions[:1], enhancing: regions}
    found = label_values(regions, False, named)
    assert found is not None
    logits_PKUV = torch.tensor([[-1.0, -2, -3], [1, -1, -1], [2, 1, -1], [1, 1, 1]])[:, :, None, None]
    assert tuple(found.of(logits_PKUV, are_logits=True)[:, 0, 0].tolist()) == values
    assert tuple(found.of(logits_PKUV.sigmoid(), are_logits=False)[:, 0, 0].tolist()) == values


def test_regions_that_no_value_stands_for_become_the_most_likely_value() -> None:
    named = {0: (), 1: ("whole", "core"), 2: ("whole",)}
    values = label_values(("whole", "core"), False, named)
    assert values is not None
    core_alone_PKUV = torch.tensor([[-0.5, 3.0], [-3.0, 0.5]])[:, :, None, None]
    logits = core_alone_PKUV[:, :, 0, 0]
    likelihoods = {  # log of the product of the probabilities of each region being as the value says
        value: sum(
            torch.nn.functional.logsigmoid(logits[:, k] * (1 if name in of else -1))
            for k, name in enumerate(("whole", "core"))
        )
        for value, of in named.items()
    }
    best = torch.stack(list(likelihoods.values())).argmax(0)
    expected = [list(named)[int(place)] for place in best]
    assert values.of(core_alone_PKUV, are_logits=True)[:, 0, 0].tolist() == expected == [1, 0]


def test_masks_of_overlapping_classes_need_files_of_their_own() -> None:
    assert label_values(("a", "b"), False, {}) is None
    numbered = label_values(("a", "b"), True, {})
    assert numbered is not None
    assert (numbered.values, numbered.members) == ((0, 1, 2), ((), (0,), (1,)))


def test_what_is_removed_from_a_region_becomes_what_is_left_of_its_value() -> None:
    regions = ("whole", "core", "enhancing")
    values = label_values(regions, False, {0: (), 1: regions[:2], 2: regions[:1], 4: regions})
    assert values is not None
    given = np.array([0, 1, 2, 4], np.uint8)
    assert values.without(2, given).tolist() == [0, 1, 2, 1]
    assert values.without(1, given).tolist() == [0, 2, 2, 2]
    assert values.without(0, given).tolist() == [0, 0, 0, 0]


def test_parts_of_a_mask_are_kept_by_size() -> None:
    mask_XYZ = np.zeros((9, 3, 3), bool)
    mask_XYZ[:3], mask_XYZ[4, :2, 0], mask_XYZ[5, 2, 1] = True, True, True  # the last two touch at a corner
    mask_XYZ[8, 0, 0] = True
    kept = {
        "largest": mask_XYZ & ~unlikely_parts(mask_XYZ, Cleaning(keep_largest=True), 1.0),
        "from 3 ml": mask_XYZ & ~unlikely_parts(mask_XYZ, Cleaning(smallest_ml=3.0), 1.0),
    }
    assert {name: each.sum() for name, each in kept.items()} == {"largest": 27, "from 3 ml": 30}
    nothing = np.zeros((2, 2, 2), bool)
    assert not unlikely_parts(nothing, Cleaning(keep_largest=True), 1.0).any()
