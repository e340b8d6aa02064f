"""Losses of labelled volumes, held against their formulas in plain numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor

from trainkit import RecipeError, SummedLoss
from trainkit_segmentation.losses.dice import DiceLoss
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.losses.focal import Focal
from trainkit_segmentation.losses.kind import SegmentationLoss
from trainkit_segmentation.losses.tversky import Tversky

SIZE = (4, 5, 6)
SMOOTH = 1e-5  # MONAI's, in numerator and denominator


def case(exclusive: bool) -> tuple[Tensor, Tensor]:
    """Return logits and label of a batch of two."""
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64)
    if exclusive:
        return scores, torch.randint(0, 3, (2, 1, *SIZE), generator=generator)
    return scores, (torch.rand(2, 3, *SIZE, generator=generator) < 0.3).double()


def value(settings: SegmentationLoss, exclusive: bool, outputs: dict[str, Tensor] | None = None) -> float:
    data: Any = SimpleNamespace(exclusive=exclusive)
    logits, label = case(exclusive)
    model: Any = None
    return float(settings.build(data)(outputs or {"logits": logits}, {"label": label}, model))


def probabilities(exclusive: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return probability and truth of each class, (B, K, voxels)."""
    logits, label = case(exclusive)
    flat = logits.flatten(2).numpy()
    if exclusive:
        return softmax(flat, axis=1), np.moveaxis(np.eye(3)[label[:, 0].flatten(1).numpy()], -1, 1)
    return expit(flat), label.flatten(2).numpy()


def soft_dice_loss(exclusive: bool, *, background: bool = False, over: tuple[int, ...] = (2,), power: int = 1) -> float:
    p, t = probabilities(exclusive)
    if exclusive and not background:
        p, t = p[:, 1:], t[:, 1:]
    both = (p * t).sum(over)
    either = (p**power).sum(over) + (t**power).sum(over)
    return float((1 - (2 * both + SMOOTH) / (either + SMOOTH)).mean())


def cross_entropy(exclusive: bool) -> float:
    logits, _ = case(exclusive)
    _, t = probabilities(exclusive)
    flat = logits.flatten(2).numpy()
    if exclusive:
        return float(-(t * log_softmax(flat, axis=1)).sum(1).mean())
    return float(-(t * np.log(expit(flat)) + (1 - t) * np.log(expit(-flat))).mean())


@pytest.mark.parametrize("exclusive", [True, False])
def test_dice_is_one_minus_twice_the_overlap_over_the_sum(exclusive: bool) -> None:
    assert value(DiceLoss(), exclusive) == pytest.approx(soft_dice_loss(exclusive), rel=1e-6)
    expected = soft_dice_loss(exclusive, background=True)
    assert value(DiceLoss(include_background=True), exclusive) == pytest.approx(expected, rel=1e-6)
    expected = soft_dice_loss(exclusive, over=(0, 2))
    assert value(DiceLoss(batch_dice=True), exclusive) == pytest.approx(expected, rel=1e-6)
    assert value(DiceLoss(squared=True), exclusive) == pytest.approx(soft_dice_loss(exclusive, power=2), rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_dice_ce_is_the_weighted_sum_of_both(exclusive: bool) -> None:
    expected = soft_dice_loss(exclusive) + cross_entropy(exclusive)
    assert value(DiceCE(), exclusive) == pytest.approx(expected, rel=1e-6)
    weighted = 0.25 * soft_dice_loss(exclusive) + 2 * cross_entropy(exclusive)
    assert value(DiceCE(dice_weight=0.25, ce_weight=2.0), exclusive) == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_focal_weighs_cross_entropy_by_how_wrong_a_voxel_is(exclusive: bool) -> None:
    p, t = probabilities(exclusive)
    # Voxel by voxel: softmax counts the true class alone, a sigmoid each class by itself; both are means over classes.
    right = np.where(t == 1, p, 1 - p)
    each = (1 - right) ** 2 * -np.log(right)
    expected = float((each * t).mean() if exclusive else each.mean())
    assert value(Focal(), exclusive) == pytest.approx(expected, rel=1e-5)
    plain = cross_entropy(True) / 3 if exclusive else cross_entropy(False)
    assert value(Focal(gamma=0.0), exclusive) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_tversky_weighs_what_is_found_too_much_and_what_is_missed(exclusive: bool) -> None:
    p, t = probabilities(exclusive)
    if exclusive:
        p, t = p[:, 1:], t[:, 1:]
    both, too_much, missed = (p * t).sum(2), (p * (1 - t)).sum(2), ((1 - p) * t).sum(2)
    expected = (1 - (both + SMOOTH) / (both + 0.2 * too_much + 0.9 * missed + SMOOTH)).mean()
    found = value(Tversky(false_positives=0.2, false_negatives=0.9), exclusive)
    assert found == pytest.approx(float(expected), rel=1e-6)
    half = value(Tversky(false_positives=0.5, false_negatives=0.5), exclusive)
    assert half == pytest.approx(soft_dice_loss(exclusive), abs=1e-6)


ALL = [DiceCE(), DiceLoss(), Focal(), Tversky()]


@pytest.mark.parametrize("settings", ALL, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_perfect_score_costs_nothing(settings: SegmentationLoss, exclusive: bool) -> None:
    logits, _ = case(exclusive)
    t = torch.from_numpy(probabilities(exclusive)[1]).reshape(logits.shape)
    assert value(settings, exclusive, {"logits": 60 * (2 * t - 1)}) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("settings", [DiceCE(), DiceLoss(), Tversky()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("exclusive", [True, False])
def test_its_gradient_is_its_slope(settings: SegmentationLoss, exclusive: bool) -> None:
    logits, label = case(exclusive)
    data: Any = SimpleNamespace(exclusive=exclusive)
    model: Any = None
    loss, part = settings.build(data), {"label": label[:, :, :2, :2, :2]}
    corner = logits[:, :, :2, :2, :2].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda scores: loss({"logits": scores}, part, model), (corner,))


@pytest.mark.parametrize("exclusive", [True, False])
def test_deep_supervision_is_the_weighted_mean_over_heads_with_labels_at_their_size(exclusive: bool) -> None:
    logits, label = case(exclusive)
    coarse = logits[:, :, ::2, ::2, ::2] * 0.7
    size = coarse.shape[2:]
    # The nearest voxel of each coarse voxel's centre, worked out axis by axis.
    nearest = [np.floor((np.arange(n) + 0.5) * whole / n).astype(int) for n, whole in zip(size, SIZE, strict=True)]
    at_coarse = label[(slice(None), slice(None), *np.ix_(*nearest))]
    data: Any = SimpleNamespace(exclusive=exclusive)
    model: Any = None

    def alone(settings: SegmentationLoss, of: Tensor, with_label: Tensor) -> float:
        return float(settings.build(data)({"logits": of}, {"label": with_label}, model))

    heads = {"logits": logits, "logits_1": logits * 0.3, "logits_2": coarse}
    each = [alone(DiceCE(), logits, label), alone(DiceCE(), logits * 0.3, label), alone(DiceCE(), coarse, at_coarse)]
    assert value(DiceCE(), exclusive, heads) == pytest.approx((4 * each[0] + 2 * each[1] + each[2]) / 7, rel=1e-6)
    given = DiceCE(deep_supervision_weights=(3.0, 0.0, 1.0))
    assert value(given, exclusive, heads) == pytest.approx((3 * each[0] + each[2]) / 4, rel=1e-6)
    with pytest.raises(RecipeError, match="3 scores, but deep_supervision_weights has 2"):
        value(DiceCE(deep_supervision_weights=(1.0, 0.5)), exclusive, heads)


# ---- parts of a batch -----------------------------------------------------------------------------------------------

BATCH_DICE: list[DiceLoss | DiceCE] = [
    DiceLoss(batch_dice=True),
    DiceLoss(batch_dice=True, squared=True),
    DiceLoss(batch_dice=True, include_background=True),
    DiceCE(batch_dice=True),
    DiceCE(batch_dice=True, dice_weight=0.5, ce_weight=3.0, include_background=True),
]


def many(exclusive: bool, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return scores of three heads, and labels, of six patches with more and more foreground."""
    generator = torch.Generator().manual_seed(8)
    scores = 2 * torch.randn(6, 3, 8, 6, 4, generator=generator, dtype=dtype)
    amount = torch.linspace(0, 1, 6).reshape(6, 1, 1, 1, 1)
    drawn = torch.rand(6, 1 if exclusive else 3, 8, 6, 4, generator=generator) < amount
    label = drawn * torch.randint(1, 3, drawn.shape, generator=generator) if exclusive else drawn.to(dtype)
    return {"logits": scores, "logits_1": scores[:, :, ::2, ::2, ::2] * 0.7, "logits_2": -scores}, {"label": label}


def summed(settings: SegmentationLoss, exclusive: bool) -> SummedLoss:
    data: Any = SimpleNamespace(exclusive=exclusive)
    loss: Any = settings.build(data)
    return loss  # type: ignore[no-any-return]


@pytest.mark.parametrize("settings", BATCH_DICE, ids=str)
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("heads", [("logits",), ("logits", "logits_1", "logits_2")], ids=len)
def test_sums_over_the_parts_of_a_batch_are_those_of_the_whole(
    settings: SegmentationLoss, exclusive: bool, heads: tuple[str, ...]
) -> None:
    assert settings.combine() == "sums"
    loss, model = summed(settings, exclusive), torch.nn.Identity()
    outputs, batch = many(exclusive, torch.float64)
    outputs = {name: outputs[name] for name in heads}
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    added = sum(
        loss.sums({name: each[part] for name, each in outputs.items()}, {"label": batch["label"][part]}, model)
        for part in parts
    )
    whole = loss.sums(outputs, batch, model)
    assert isinstance(added, Tensor)
    assert torch.allclose(added, whole, rtol=1e-12, atol=0)
    # What is minimised for one batch is MONAI's, which the value of the sums has to meet.
    assert float(loss.value(added)) == pytest.approx(float(loss(outputs, batch, model)), rel=1e-6)
    each = [float(loss({"logits": outputs["logits"][part]}, {"label": batch["label"][part]}, model)) for part in parts]
    alone = float(loss({"logits": outputs["logits"]}, batch, model))
    assert abs(np.average(each, weights=[1, 3, 2]) - alone) > 1e-3, "the mean of the parts is something else"


@pytest.mark.parametrize("settings", BATCH_DICE, ids=str)
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_the_value_of_sums_and_its_gradient_are_those_of_the_loss(
    settings: SegmentationLoss, exclusive: bool, dtype: torch.dtype, within: float
) -> None:
    loss, model = summed(settings, exclusive), torch.nn.Identity()
    outputs, batch = many(exclusive, dtype)
    gradients = []
    for by_sums in (False, True):
        scores = {name: each.detach().requires_grad_(True) for name, each in outputs.items()}
        value = loss.value(loss.sums(scores, batch, model)) if by_sums else loss(scores, batch, model)
        gradients.append([value.detach(), *torch.autograd.grad(value, list(scores.values()))])
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).abs().max() / one.abs().max()) < within


def test_sums_are_wide_where_scores_are_narrow() -> None:
    outputs, batch = many(True, torch.float32)
    narrow = {name: each.bfloat16() for name, each in outputs.items()}
    loss = summed(DiceCE(batch_dice=True), True)
    found = loss.sums(narrow, batch, torch.nn.Identity())
    assert found.dtype == torch.float32
    expected = loss.sums({name: each.float() for name, each in narrow.items()}, batch, torch.nn.Identity())
    assert torch.allclose(found, expected, rtol=1e-2)


@pytest.mark.parametrize("settings", [DiceCE(), DiceLoss(), Focal(), Focal(alpha=0.3), Tversky()], ids=str)
@pytest.mark.parametrize("exclusive", [True, False])
def test_other_losses_are_means_over_patches(settings: SegmentationLoss, exclusive: bool) -> None:
    assert settings.combine() == "mean"
    data: Any = SimpleNamespace(exclusive=exclusive)
    loss, model = settings.build(data), torch.nn.Identity()
    outputs, batch = many(exclusive, torch.float64)
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    each = [
        float(loss({name: scores[part] for name, scores in outputs.items()}, {"label": batch["label"][part]}, model))
        for part in parts
    ]
    assert np.average(each, weights=[1, 3, 2]) == pytest.approx(float(loss(outputs, batch, model)), rel=1e-6)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), ()])
def test_weights_that_make_no_mean_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least 0 each, and not all 0"):
        DiceLoss(deep_supervision_weights=weights)
