"""Figures of merit of whole volumes, held against MONAI, plain counting, and shapes whose distances are known."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import segmentation_cases
from clients.volumes import CASES, SPACING_MM, LiveVolumes
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.surface_dice import compute_surface_dice
from scipy.ndimage import gaussian_filter
from torch import Tensor

from trainkit import Context, DataError, Monitor, State
from trainkit_segmentation.data import kind_live, label_maps
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.metrics.case_scores import CaseScores
from trainkit_segmentation.metrics.dice import Dice
from trainkit_segmentation.metrics.hd95 import HD95
from trainkit_segmentation.metrics.overlap import counts, dice
from trainkit_segmentation.metrics.surface_dice import SurfaceDice
from trainkit_segmentation.metrics.surfaces import hausdorff_95, surface_agreement
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases


def one_hot(labels_1XYZ: Tensor, number: int) -> Tensor:
    return torch.stack([labels_1XYZ[0] == k for k in range(1, number + 1)])


def test_dice_is_that_of_monai_by_either_way_of_counting() -> None:
    generator = torch.Generator().manual_seed(0)
    found, true = torch.randint(0, 5, (2, 1, 7, 8, 9), generator=generator)
    expected = compute_dice(one_hot(found, 4)[None].float(), one_hot(true, 4)[None].float())[0].double()
    by_label = dice(counts(found, true, 4, exclusive=True))
    assert torch.allclose(by_label, expected)
    assert torch.equal(dice(counts(one_hot(found, 4), one_hot(true, 4).float(), 4, exclusive=False)), by_label)


def each_class(measure: Callable[..., float], found: Any, true: Any, *rest: Any) -> list[float]:
    return [measure(one, other, *rest) for one, other in zip(found, true, strict=True)]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI warns of what it does itself
def test_distances_of_surfaces_are_those_of_monai() -> None:
    rng = np.random.default_rng(0)
    found, true = (gaussian_filter(rng.normal(size=(3, 18, 20, 22)), (0, 2, 2, 2)) > 0 for _ in range(2))
    spacing = (1.5, 0.7, 3.0)
    batches = [torch.from_numpy(each)[None].float() for each in (found, true)]
    options: Any = {"include_background": True, "spacing": list(spacing)}
    expected = compute_hausdorff_distance(*batches, percentile=95, **options)[0]
    assert each_class(hausdorff_95, found, true, spacing) == pytest.approx(expected.tolist())
    expected = compute_surface_dice(*batches, class_thresholds=[1.6] * 3, **options)[0]
    assert each_class(surface_agreement, found, true, spacing, 1.6) == pytest.approx(expected.tolist())


def boxes(*edges: tuple[slice, slice, slice], size: int = 20) -> np.ndarray[Any, Any]:
    masks = np.zeros((len(edges), size, size, size), dtype=bool)
    for mask, edge in zip(masks, edges, strict=True):
        mask[edge] = True
    return masks


def test_surfaces_of_a_shifted_plate_are_apart_by_the_shift_in_mm() -> None:
    # Thin plates that span the volume: every voxel of one is nearest to the one straight across.
    everywhere = slice(None)
    found = boxes((slice(5, 6), everywhere, everywhere), (everywhere, everywhere, slice(9, 10)))
    true = boxes((slice(8, 9), everywhere, everywhere), (everywhere, everywhere, slice(10, 11)))
    assert each_class(hausdorff_95, found, true, (2.0, 1.0, 0.5)) == [6.0, 0.5]
    assert each_class(surface_agreement, found, true, (2.0, 1.0, 0.5), 0.5) == [0.0, 1.0]
    assert each_class(surface_agreement, found, true, (2.0, 1.0, 0.5), 6.0) == [1.0, 1.0]


def test_a_class_in_one_mask_alone_is_as_wrong_as_can_be_and_one_in_neither_counts_not() -> None:
    box = slice(2, 6), slice(2, 6), slice(2, 6)
    empty = slice(0), slice(0), slice(0)
    found, true = boxes(box, empty, empty, box), boxes(empty, box, empty, box)
    diagonal = math.sqrt(20**2 + 40**2 + 60**2)
    distances = each_class(hausdorff_95, found, true, (1.0, 2.0, 3.0))
    assert distances == pytest.approx([diagonal, diagonal, math.nan, 0], nan_ok=True)
    overlaps = dice(counts(torch.from_numpy(found), torch.from_numpy(true), 4, exclusive=False)).tolist()
    for shares in (each_class(surface_agreement, found, true, (1.0, 2.0, 3.0), 1.0), overlaps):
        assert shares == pytest.approx([0, 0, math.nan, 1], nan_ok=True)


# ---- as a run uses them ---------------------------------------------------------------------------------------------


def state_of(data: LiveVolumes, epoch: int = 0) -> State:
    context = Context(seed=0, device=torch.device("cpu"), folder=Path("nowhere"))
    state = State(context, 10, torch.nn.Identity(), data, {}, Monitor())
    state.split, state.epoch = "val", epoch
    return state


def fine_scores(labels_LXYZ: Tensor, exclusive: bool) -> Tensor:
    """Return certain scores on the network's grid, twice as fine, for labels of a case's own grid."""
    fine = labels_LXYZ.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    if exclusive:
        fine = torch.stack([fine[0] == k for k in range(3)])
    return 10 * (2.0 * fine - 1)[None]


def validate(metric: Any, data: LiveVolumes, found: dict[str, Tensor], state: State) -> dict[str, float]:
    if hasattr(metric, "on_validation_start"):
        metric.on_validation_start(state)
    for case in CASES["val"]:
        outputs = {"logits": fine_scores(found[case], data.exclusive)}
        metric.update(outputs, {"case": case, "index": torch.tensor([0])})
    values: dict[str, float] = metric.compute()
    metric.on_validation_end(state)
    return values


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_perfect_prediction_has_perfect_figures_under_the_names_of_the_classes(
    exclusive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="trainkit")
    data = LiveVolumes((16, 16, 16), exclusive, 12, 0)
    truth = {case: data.truth(case) for case in CASES["val"]}
    for settings, perfect in ((Dice(), 1.0), (HD95(), 0.0), (SurfaceDice(), 1.0)):
        values = validate(settings.build(data), data, truth, state_of(data))
        name = settings.name
        assert values == {name: perfect, f"{name}_shell": perfect, f"{name}_ball_of_fat": perfect}
        stated = settings.names()
        assert stated[0] in values
        assert all(each == stated[0] or each.startswith(stated[1].removesuffix("*")) for each in values)
    assert not caplog.messages


def test_the_mean_is_over_cases_then_over_classes_and_leaves_out_what_is_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="trainkit")
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    first, second = CASES["val"]
    truth = {case: data.truth(case).clone() for case in CASES["val"]}
    truth[second][truth[second] == 2] = 1  # the second case has no ball
    data.truth = lambda case: truth[case]  # type: ignore[method-assign]
    found = {case: each.clone() for case, each in truth.items()}
    found[first][:, ::2][found[first][:, ::2] == 2] = 1  # half of the planes of the first one's ball are missed
    metric, state = Dice().build(data), state_of(data)
    values = validate(metric, data, found, state)

    def overlap(case: str, k: int) -> float:
        a, b = found[case] == k, truth[case] == k
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))

    shell = (overlap(first, 1) + overlap(second, 1)) / 2
    ball = overlap(first, 2)
    assert values == pytest.approx({"dice": (shell + ball) / 2, "dice_shell": shell, "dice_ball_of_fat": ball})
    assert caplog.messages == [f"val/dice leaves out classes that have nothing to compare: ball of fat ({second})"]
    validate(metric, data, found, state)
    assert len(caplog.messages) == 1, "it is said once"

    for each in (*truth.values(), *found.values()):
        each[each == 2] = 1
    values = validate(metric, data, found, state)
    assert values == {"dice": 1.0, "dice_shell": 1.0}
    assert caplog.messages[1] == "val/dice leaves out classes that have nothing to compare: ball of fat (all cases)"

    for each in (*truth.values(), *found.values()):
        each[:] = 0
    assert validate(metric, data, found, state) == {}


def test_what_is_found_in_a_case_without_it_counts_as_nought_and_has_no_score_if_no_case_has_it() -> None:
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    first, *others = CASES["val"]
    truth = {case: data.truth(case) for case in CASES["val"]}
    found = dict(truth)
    for case in others:
        truth[case] = truth[case].clamp_max(1)
    data.truth = lambda case: truth[case]  # type: ignore[method-assign]
    values = validate(Dice().build(data), data, found, state_of(data))
    assert values["dice_ball_of_fat"] == pytest.approx(1 / len(truth))
    truth[first] = truth[first].clamp_max(1)
    values = validate(Dice().build(data), data, found, state_of(data))
    assert set(values) == {"dice", "dice_shell"}


def test_means_have_the_same_bits_in_whatever_order_the_cases_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="trainkit")
    generator = torch.Generator().manual_seed(5)
    scores_NK = (
        torch.rand(50, 2, generator=generator, dtype=torch.float64) * 10.0 ** torch.arange(50).remainder(9)[:, None]
    )
    scores_NK[7, 1] = scores_NK[3, 1] = torch.nan
    state = state_of(LiveVolumes((16, 16, 16), True, 12, 0))
    found = set()
    for order in (torch.arange(50), torch.arange(50).flip(0), torch.randperm(50, generator=generator)):
        scores = CaseScores("dice", ("liver", "tumour"))
        for n in order.tolist():
            scores.add({"case": f"case_{n}", "index": torch.tensor([n])}, scores_NK[n])
        found.add(tuple(scores.means().items()))
        scores.log_left_out(state)
    assert len(found) == 1
    assert set(caplog.messages) == {"val/dice leaves out classes that have nothing to compare: tumour (case_3, case_7)"}


def test_measures_of_surfaces_wait_for_their_epochs_and_come_after_the_last() -> None:
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    truth = {case: data.truth(case) for case in CASES["val"]}
    metric = HD95(every_epochs=3).build(data)
    measured = [bool(validate(metric, data, truth, state_of(data, epoch))) for epoch in range(10)]
    assert [epoch + 1 for epoch, each in enumerate(measured) if each] == [3, 6, 9, 10]


def test_a_distance_is_in_mm_of_the_cases_own_grid() -> None:
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    truth = {case: data.truth(case) for case in CASES["val"]}
    found = {case: each.roll(1, dims=3) for case, each in truth.items()}
    values = validate(HD95().build(data), data, found, state_of(data))
    # A body moved by a voxel along z has surfaces at most that far apart, and at its poles exactly so.
    assert values["hd95_ball_of_fat"] == SPACING_MM[2]


def test_the_prediction_of_a_case_is_worked_out_once_and_let_go_with_its_scores() -> None:
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    calls = []
    resample = data.to_original
    data.to_original = lambda scores, case: calls.append(case) or resample(scores, case)  # type: ignore[method-assign, func-returns-value]
    logits = fine_scores(data.truth("val_0"), True)
    batch = {"case": "val_0"}
    first = data.prediction({"logits": logits}, batch)
    assert data.prediction({"logits": logits}, batch) is first
    data.prediction({"logits": logits.clone()}, batch)
    assert calls == ["val_0"] * 6, "score by score, twice"
    assert torch.equal(first, data.truth("val_0"))
    kept = weakref.ref(data.prediction({"logits": logits}, batch))
    assert kept() is not None
    data.on_validation_end(state_of(data))
    assert kept() is None, "nothing is kept between validations"


def test_all_metrics_of_a_case_share_one_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    data = LiveVolumes((16, 16, 16), True, 12, 0)
    calls = []

    def counted(scores: Any, exclusive: bool) -> Tensor:
        calls.append(exclusive)
        return label_maps.most_likely(scores, exclusive)

    monkeypatch.setattr(kind_live, "most_likely", counted)
    outputs = {"logits": fine_scores(data.truth("val_0"), True)}
    for settings in (Dice(), HD95(), SurfaceDice()):
        settings.build(data).update(outputs, {"case": "val_0", "index": torch.tensor([0])})
    assert len(calls) == 1


@pytest.mark.parametrize("regions", [False, True])
def test_what_preprocessing_cropped_is_background(tmp_path: Path, regions: bool) -> None:
    folder = segmentation_cases.nnunet(tmp_path / "cases", channels=1, cases=2, regions=regions)
    for path in (folder / "imagesTr").iterdir():  # empty but for a box
        image = np.zeros(segmentation_cases.SIZE, np.int16)
        image[4:14, 6:20, 3:15] = 100 + np.arange(14)[:, None]
        segmentation_cases.save(path, image)
    settings = MSD(
        path=folder,
        split=SameCases(),
        patch_size=(8, 8, 8),
        preprocessing=Preprocessing(crop_to_nonzero=True, spacing_mm=(2.0, 2.0, 2.0)),
        cache=Cache(folder=tmp_path / "cache"),
    )
    data = settings.build(Context(0, torch.device("cpu"), tmp_path))
    batch = next(iter(data.evaluate("val")))
    scores = 5.0 + torch.rand(1, len(data.classes) + data.exclusive, *batch["image"].shape[2:])
    scores[:, 0] += 0.0 if regions else -5.0  # everywhere some class
    found = data.prediction({"logits": scores}, batch)
    inside = torch.zeros(segmentation_cases.SIZE, dtype=torch.bool)
    inside[4:14, 6:20, 3:15] = True
    assert torch.equal((found > 0).any(0), inside)


def test_classes_whose_scores_would_have_one_name_are_refused_with_both():
    with pytest.raises(DataError, match='"left lung" and "left_lung" would both be called left_lung'):
        CaseScores("dice", ("left lung", "liver", "left_lung"))
