"""Voxels whose label value says that they do not count: in losses, metrics, patches, and what is said of them."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from inspected import inspected
from scipy.special import expit, log_softmax, softmax
from torch import Tensor

from trainkit import DataError
from trainkit_segmentation.cases.case import Volume
from trainkit_segmentation.cases.labels import Labels, encode_values, ignored_voxels
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.meanings import proposed_labels
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.losses.dice import DiceLoss
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.losses.focal import Focal
from trainkit_segmentation.losses.tversky import Tversky
from trainkit_segmentation.metrics.dice import Dice
from trainkit_segmentation.metrics.hd95 import HD95
from trainkit_segmentation.metrics.surface_dice import SurfaceDice
from trainkit_segmentation.metrics.surfaces import hausdorff_95, surface_agreement
from trainkit_segmentation.patches.augmentation import Affine, Augmentation
from trainkit_segmentation.patches.cutting import choose_start
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.foreground import quantiles_of_foreground
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare
from trainkit_segmentation.splits.same_cases import SameCases

LOSSES = [DiceCE(), DiceCE(batch_dice=True), DiceLoss(), DiceLoss(batch_dice=True, squared=True), Focal(), Tversky()]
LOSSES += [DiceCE(include_background=True), DiceCE(include_background=True, batch_dice=True)]
SMOOTH = 1e-5
SIZE = (4, 6, 8)

# ---- losses ---------------------------------------------------------------------------------------------------------


def batch_of(exclusive: bool, garbage: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the scores of two heads, and a batch in which a part of each patch, and all of one, is ignored."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 3, *SIZE, generator=generator, dtype=torch.float64)
    coarse = torch.randn(3, 3, *(n // 2 for n in SIZE), generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (3, 1, *SIZE), generator=generator)
    if not exclusive:
        label = (torch.rand(3, 3, *SIZE, generator=generator) < 0.3).double()
    ignored = torch.rand(3, 1, *SIZE, generator=generator) < torch.tensor([0.2, 0.9, 2.0])[:, None, None, None, None]
    random = torch.randint(0, 3 if exclusive else 2, label.shape, generator=torch.Generator().manual_seed(garbage))
    label = torch.where(ignored, random.to(label.dtype), label)
    outputs = {"logits": logits.requires_grad_(), "logits_1": coarse.requires_grad_()}
    return outputs, {"label": label, "ignored": ignored}


def loss_of(settings: Any, exclusive: bool, outputs: Any, batch: Any) -> Tensor:
    found: Tensor = settings.build(SimpleNamespace(exclusive=exclusive))(outputs, batch, None)
    return found


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_what_a_label_holds_where_it_is_ignored_changes_no_bit_of_a_loss_or_its_gradient(
    settings: Any, exclusive: bool
) -> None:
    found = []
    for garbage in (1, 2):
        outputs, batch = batch_of(exclusive, garbage)
        loss = loss_of(settings, exclusive, outputs, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = outputs["logits"].grad
        assert gradient is not None
        assert not gradient.masked_select(batch["ignored"]).any()
        assert gradient.masked_select(~batch["ignored"]).all()
        found.append((loss, gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_dice_and_cross_entropy_are_those_of_the_voxels_that_count(exclusive: bool, batch_dice: bool) -> None:
    outputs, batch = batch_of(exclusive)
    dice_of, entropy_of, overlaps, sizes = [], [], [], []
    for b in (0, 1):  # nothing counts in the third
        counts = ~batch["ignored"][b, 0].numpy()
        scores, label = outputs["logits"][b].detach().numpy()[:, counts], batch["label"][b].numpy()[:, counts]
        true = np.eye(3)[label[0]].T if exclusive else label
        found = softmax(scores, axis=0) if exclusive else expit(scores)
        if exclusive:
            entropy_of.append(-(true * log_softmax(scores, axis=0)).sum(0))
        else:
            entropy_of.append(-(true * np.log(found) + (1 - true) * np.log(1 - found)).ravel())
        found, true = found[int(exclusive) :], true[int(exclusive) :]
        overlaps.append(2 * (found * true).sum(1))
        sizes.append((found + true).sum(1))
        dice_of.append((1 - (overlaps[-1] + SMOOTH) / (sizes[-1] + SMOOTH)).mean())
    if batch_dice:
        expected = (1 - (sum(overlaps) + SMOOTH) / (sum(sizes) + SMOOTH)).mean() + np.concatenate(entropy_of).mean()
    else:  # a mean over patches, to which the third adds 0
        expected = (sum(dice_of) + sum(each.mean() for each in entropy_of)) / 3
    head = {"logits": outputs["logits"]}
    found_loss = loss_of(DiceCE(batch_dice=batch_dice), exclusive, head, batch)
    assert found_loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_a_step_in_which_nothing_counts_has_no_loss_and_no_gradient(settings: Any, exclusive: bool) -> None:
    outputs, batch = batch_of(exclusive)
    for more in ({}, {"annotated": torch.tensor([[True] * (3 - exclusive)] * 3)}):
        loss = loss_of(settings, exclusive, outputs, {**batch, "ignored": torch.ones_like(batch["ignored"]), **more})
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0
        assert outputs["logits"].grad is not None
        assert not outputs["logits"].grad.any()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_where_no_voxel_is_ignored_a_loss_is_what_it_is_without_saying_so(settings: Any, exclusive: bool) -> None:
    outputs, batch = batch_of(exclusive)
    said = loss_of(settings, exclusive, outputs, {**batch, "ignored": torch.zeros_like(batch["ignored"])})
    assert said.item() == pytest.approx(loss_of(settings, exclusive, outputs, {"label": batch["label"]}).item())


def test_the_sums_of_the_parts_of_a_step_are_those_of_the_whole() -> None:
    outputs, batch = batch_of(True)
    data: Any = SimpleNamespace(exclusive=True)
    loss: Any = DiceCE(batch_dice=True).build(data)
    parts = [
        loss.sums({k: v[b : b + 1] for k, v in outputs.items()}, {k: v[b : b + 1] for k, v in batch.items()}, None)
        for b in range(3)
    ]
    assert torch.allclose(loss.value(sum(parts)), loss(outputs, batch, None), rtol=1e-12)


def test_a_patch_may_lack_both_voxels_and_classes() -> None:
    outputs, batch = batch_of(True)
    batch["label"][0][batch["label"][0] == 2] = 0
    found = loss_of(
        DiceCE(dice_weight=0.0),
        True,
        {"logits": outputs["logits"][:1]},
        {k: v[:1] for k, v in batch.items()} | {"annotated": torch.tensor([[True, False]])},
    )
    counts = ~batch["ignored"][0, 0]
    probability = outputs["logits"][0].softmax(0)[:, counts]
    either = torch.stack([probability[0] + probability[2], probability[1]])
    expected = -either.log().gather(0, batch["label"][0][:, counts]).mean()
    assert found.item() == pytest.approx(expected.item())


# ---- metrics --------------------------------------------------------------------------------------------------------


def surface_by_hand(mask: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the places (S, 3) of voxels with a neighbour outside, where both count; outside the volume all count."""
    found = []
    for place in np.argwhere(mask & ~ignored):
        for axis, step in itertools.product(range(3), (-1, 1)):
            other = place.copy()
            other[axis] += step
            inside = (other >= 0).all() and (other < mask.shape).all()
            if not inside or not (mask[tuple(other)] or ignored[tuple(other)]):
                found.append(place)
                break
    return np.array(found)


def test_the_edge_of_what_was_annotated_is_no_surface() -> None:
    found, true = made_up.shells(1, 2) > 0, made_up.shells(2, 2) > 0
    ignored = np.zeros(found.shape, bool)
    ignored[:, :11], ignored[12:, :, 9:] = True, True
    spacing = (1.0, 1.5, 2.0)
    one, other = (surface_by_hand(mask, ignored) * spacing for mask in (found, true))
    apart = np.sqrt(((one[:, None] - other[None]) ** 2).sum(-1))
    distances = [apart.min(1), apart.min(0)]
    found, true = found & ~ignored, true & ~ignored
    hd95 = hausdorff_95(found, true, spacing, ignored_XYZ=ignored)
    assert hd95 == pytest.approx(max(np.percentile(each, 95) for each in distances))
    share = surface_agreement(found, true, spacing, 1.6, ignored_XYZ=ignored)
    assert share == pytest.approx((np.concatenate(distances) <= 1.6).mean())
    assert share < surface_agreement(found, true, spacing, 1.6)  # cut at the edge, both have the same surface there


def test_masks_without_a_surface_that_counts_cannot_be_compared() -> None:
    whole = np.zeros((5, 5, 5), bool)
    whole[2, 2, 2] = True
    around = ~whole
    assert np.isnan(hausdorff_95(whole, whole, (1.0, 1.0, 1.0), ignored_XYZ=around))
    assert np.isnan(surface_agreement(whole, whole, (1.0, 1.0, 1.0), 1.0, ignored_XYZ=around))
    around[2, 2, 3] = False
    both = whole.copy()
    both[2, 2, 3] = True
    assert surface_agreement(whole, both, (1.0, 1.0, 1.0), 1.0, ignored_XYZ=around) == 0


# ---- from files to batches and figures ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write nnU-Net's folder in which two of three slices are not annotated."""
    path = made_up.nnunet(tmp_path_factory.mktemp("sparse"), cases=3)
    content = json.loads((path / "dataset.json").read_text())
    content["labels"] = {**content["labels"], "ignore": 7}
    (path / "dataset.json").write_text(json.dumps(content))
    for label in (path / "labelsTr").iterdir():
        image: Any = nibabel.load(label)
        values = np.asarray(image.dataobj).copy()
        values[..., np.arange(values.shape[2]) % 3 != 0] = 7
        made_up.save(label, values, image.affine)
    return path


def data_of(folder: Path, tmp_path: Path, **settings: Any) -> MSD:
    return MSD(
        path=folder, cache=Cache(folder=tmp_path / "cache"), split=SameCases(), **{"patch_size": (8, 8, 4)} | settings
    )


def stored(folder: Path, name: str) -> np.ndarray[Any, Any]:
    image: Any = nibabel.load(folder / "labelsTr" / f"{name}.nii.gz")
    return np.asarray(image.dataobj)


def test_ignored_voxels_are_marked_in_batches_and_are_background_in_labels(folder: Path, tmp_path: Path) -> None:
    live = opened(data_of(folder, tmp_path))
    seen = 0
    for batch in live.train(0, 0):
        assert batch["ignored"].shape == batch["label"].shape
        assert not batch["label"][batch["ignored"]].any()
        seen += int(batch["ignored"].sum())
    assert seen
    (first, *_) = live.evaluate("val")
    values = stored(folder, first["case"])
    assert np.array_equal(first["ignored"][0, 0], values == 7)
    ignored = live.ignored(first["case"])
    assert ignored is not None
    assert np.array_equal(ignored, values == 7)
    assert np.array_equal(live.truth(first["case"])[0], np.where(values == 7, 0, values))


def test_regions_know_ignored_voxels_too(folder: Path, tmp_path: Path) -> None:
    live = opened(data_of(folder, tmp_path, regions={"whole": (1, 2), "core": (2,)}))
    (first, *_) = live.evaluate("val")
    values = stored(folder, first["case"])
    expected = np.stack([(values == 1) | (values == 2), values == 2])
    assert np.array_equal(first["label"][0], expected)
    assert np.array_equal(live.truth(first["case"]), expected)
    assert np.array_equal(first["ignored"][0, 0], values == 7)
    for batch in live.train(0, 0):
        assert not (batch["label"] * batch["ignored"]).any()


@pytest.mark.parametrize("regions", [None, {"whole": (1, 2), "core": (2,)}])
def test_what_is_found_where_it_is_ignored_changes_no_score(folder: Path, tmp_path: Path, regions: Any) -> None:
    live = opened(data_of(folder, tmp_path, regions=regions))
    generator = torch.Generator().manual_seed(0)
    scores = []
    for _ in range(2):
        metrics: list[Any] = [each.build(live) for each in (Dice(), HD95(), SurfaceDice())]
        for batch in live.evaluate("val"):
            shape = (1, 2 if regions else 3, *batch["ignored"].shape[2:])
            logits = torch.randn(shape, generator=torch.Generator().manual_seed(int(batch["index"])))
            logits = torch.where(batch["ignored"], torch.randn(shape, generator=generator), logits)
            for metric in metrics:
                metric.update({"logits": logits}, batch)
        scores.append([metric.compute() for metric in metrics])
    assert scores[0] == scores[1]
    assert all(scores[0])


def test_check_says_how_much_is_ignored_and_which_cases_teach_nothing(folder: Path, tmp_path: Path) -> None:
    said = inspected(data_of(folder, tmp_path))
    assert "ignored: 66.667% of all voxels, in 3 of 3 cases; they count nowhere" in said
    assert not [line for line in said if line.startswith("warning") and "ignored" in line]
    label = tmp_path / "task" / "labelsTr" / "case_001.nii.gz"
    shutil.copytree(folder, tmp_path / "task")
    made_up.save(label, np.full(made_up.SIZE, 7, np.uint8))
    doubt = "1 case has nothing but ignored voxels, and so nothing can be learned there: case_001"
    assert f"warning: {doubt}" in inspected(data_of(tmp_path / "task", tmp_path))
    live = opened(data_of(tmp_path / "task", tmp_path))
    for batch in live.train(0, 0):  # patches of the case can be drawn all the same
        assert batch["ignored"][batch["index"] == 1].all()


def test_slices_that_count_in_the_same_places_of_every_patch_are_doubted(folder: Path, tmp_path: Path) -> None:
    def doubted(**settings: Any) -> list[str]:
        said = inspected(data_of(folder, tmp_path, **settings))
        return [line for line in said if line.startswith("warning: along")]

    (said,) = doubted(patch_size=(8, 8, 20))
    assert "along z" in said
    assert "data.patch_size smaller along z" in said
    assert not doubted(patch_size=(24, 24, 16))
    assert not doubted(patch_size=(8, 8, 20), augmentation=Augmentation(affine=Affine()))


def test_a_value_that_is_a_class_is_not_ignored_before_the_class_is_left_out(tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "cache")
    data = BraTS(path=made_up.brats(tmp_path / "brats"), target="labels", cache=cache, ignored_values=(2,))
    with pytest.raises(DataError, match=r'2 is edema.*data.classes = \["necrotic_core", "enhancing_tumor"\]'):
        data.cases()
    labels = BraTS(
        path=data.path, target="labels", cache=cache, ignored_values=(2,), classes=("necrotic_core", "enhancing_tumor")
    )
    assert labels.cases().labels.ignored == (2,)
    assert 2 not in labels.cases().labels.members


def test_what_labels_call_ignore_is_ignored_even_if_it_is_0(folder: Path, tmp_path: Path) -> None:
    data = data_of(folder, tmp_path, labels={"rim": 1, "core": 2, "other": 7, "ignore": 0})
    case = data.cases().cases[0].name
    live = opened(data)
    assert live.classes == ("rim", "core", "other")
    ignored = live.ignored(case)
    assert ignored is not None
    assert np.array_equal(ignored, stored(folder, case) == 0)
    with pytest.raises(ValueError, match="at least one label value other than 0"):
        data_of(folder, tmp_path, labels={"ignore": 255})


@pytest.mark.parametrize(("values", "hinted"), [((1, 255), True), ((255,), False), ((1, 2), False)])
def test_a_value_that_often_means_ignored_is_asked_about(tmp_path: Path, values: tuple[int, ...], hinted: bool) -> None:
    label = np.zeros((4, 4, 4), np.uint8)
    label.ravel()[: len(values)] = values
    said = proposed_labels([made_up.save(tmp_path / "label.nii.gz", label)])
    assert ("write ignore = 255" in said) == hinted


# ---- preprocessing and patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [True, False])
def test_resampled_labels_stay_ignored_where_they_were(exclusive: bool) -> None:
    map_XYZ = made_up.shells(3, 2, (24, 24, 24)).astype(np.int16)
    map_XYZ[:12] = 9
    members = {0: (), 1: (0,), 2: (1,) if exclusive else (0, 1)}
    codes, table = encode_values(map_XYZ, Labels(("a", "b"), exclusive, members, (9,)))
    volume = Volume(map_XYZ[None].astype(np.float32), codes, table, np.eye(4))
    assert quantiles_of_foreground(volume, 2).max() == 2  # the image shows the label values, up to 9
    prepared = prepare(volume, Preprocessing(spacing_mm=(2.0, 2.0, 2.0), crop_to_nonzero=False), 2)
    ignored = ignored_voxels(prepared.label_codes_XYZ, prepared.class_table, 2)
    assert np.array_equal(ignored, np.indices((12, 12, 12))[0] < 6)
    assert prepared.counted_places is not None
    assert np.array_equal(np.unravel_index(prepared.counted_places, (12, 12, 12)), np.nonzero(~ignored))
    assert prepared.own_ignored == 12 * 24 * 24
    assert len(prepared.place_counts) == len(prepared.own_voxels) == 2


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_every_patch_has_a_voxel_that_counts_not_always_in_the_same_place(probability: float) -> None:
    map_XYZ = np.full((40, 40, 40), 9, np.int16)
    map_XYZ[20, 8:32, 8:32] = made_up.shells(1, 1, (24, 24, 24))[..., 12]
    codes, table = encode_values(map_XYZ, Labels(("a",), True, {0: (), 1: (0,)}, (9,)))
    prepared = prepare(Volume(np.ones((1, 40, 40, 40), np.float32), codes, table, np.eye(4)), Preprocessing(), 1)
    assert prepared.counted_places is not None
    tensors = {
        "label_codes": torch.from_numpy(prepared.label_codes_XYZ),
        "places": torch.from_numpy(prepared.places),
        "place_counts": torch.from_numpy(prepared.place_counts),
        "counted_places": torch.from_numpy(prepared.counted_places),
    }
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(100):
        x, y, z = choose_start(tensors, (8, 8, 8), probability, rng)
        patch = map_XYZ[x : x + 8, y : y + 8, z : z + 8]
        assert ((patch == 1) if probability else (patch < 9))[2:6, 2:6, 2:6].any()
        seen.append(20 - x)
    assert set(seen) == {2, 3, 4, 5}
