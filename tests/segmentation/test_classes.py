"""Which classes a case, a split and a flip have: partial annotation, absent classes, sides, balanced splits."""

from __future__ import annotations

import json
import logging
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from inspected import inspected
from torch.nn.functional import cross_entropy, one_hot

from trainkit import DataError
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.missing_classes import doubts_about_sources
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.losses.cross_entropy import cross_entropy as summed
from trainkit_segmentation.losses.dice import DiceLoss
from trainkit_segmentation.losses.dice_ce import DiceCE
from trainkit_segmentation.losses.focal import Focal
from trainkit_segmentation.losses.tversky import Tversky
from trainkit_segmentation.metrics.case_scores import CaseScores
from trainkit_segmentation.metrics.dice_live import LiveDice
from trainkit_segmentation.patches.augmentation import Augmentation, Flip
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.same_cases import SameCases


def without_inner(folder: Path, *numbers: int) -> None:
    """Make class 2 of some Decathlon cases class 1, as if nobody had looked for it."""
    for number in numbers:
        path = folder / "labelsTr" / f"case_{number:03d}.nii.gz"
        image = nibabel.load(path)
        made_up.save(path, np.minimum(np.asarray(image.dataobj), 1).astype(np.uint8), image.affine)


# ---- partial annotation ---------------------------------------------------------------------------------------------

EXCLUSIVE, OVERLAPPING = SimpleNamespace(exclusive=True), SimpleNamespace(exclusive=False)
ONLY = torch.tensor([[True, True, True], [True, False, True]])


def exclusive_batch() -> tuple[dict[str, Any], dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 5, 6, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 4, (2, 1, 5, 6, 7), generator=generator)
    label[1][label[1] == 2] = 0  # nobody looked for it
    return {"logits": logits.requires_grad_()}, {"label": label, "annotated": ONLY}


def test_a_voxel_without_label_may_be_of_a_class_that_was_not_annotated() -> None:
    outputs, batch = exclusive_batch()
    probability = outputs["logits"].softmax(1)
    # By hand: in the second patch, background stands for background or class 2.
    second = torch.stack([probability[1, 0] + probability[1, 2], probability[1, 1], probability[1, 3]])
    place = torch.tensor([0, 1, -1, 2])[batch["label"][1, 0]]
    by_hand = (
        cross_entropy(outputs["logits"][:1], batch["label"][:1, 0]) - second.log().gather(0, place[None]).mean()
    ) / 2
    loss = DiceCE(dice_weight=0.0).build(EXCLUSIVE)  # type: ignore[arg-type]
    assert loss(outputs, batch, None).item() == pytest.approx(by_hand.item(), rel=1e-12)  # type: ignore[arg-type]


def test_the_dice_of_a_class_that_was_not_annotated_does_not_count() -> None:
    outputs, batch = exclusive_batch()
    probability = outputs["logits"].softmax(1)
    true = one_hot(batch["label"][:, 0], 4).movedim(-1, 1)

    def dice(b: int, k: int) -> torch.Tensor:
        p, t = probability[b, k], true[b, k]
        return 1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)

    by_hand = (sum(dice(0, k) for k in (1, 2, 3)) / 3 + sum(dice(1, k) for k in (1, 3)) / 2) / 2
    loss = DiceLoss().build(EXCLUSIVE)  # type: ignore[arg-type]
    assert loss(outputs, batch, None).item() == pytest.approx(by_hand.item(), rel=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [DiceCE(), DiceCE(batch_dice=True), DiceLoss(batch_dice=True), Focal(), Tversky()])
def test_an_overlapping_class_that_was_not_annotated_has_no_gradient(loss: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 4, 4, 4, generator=generator).requires_grad_()
    label = torch.randint(0, 2, (2, 3, 4, 4, 4), generator=generator).float()
    built = loss.build(OVERLAPPING)
    batch = {"label": label, "annotated": ONLY}
    value = built.value(built.sums({"logits": logits}, batch, None)) if loss.combine() == "sums" else None
    value = built({"logits": logits}, batch, None) if value is None else value
    value.backward()
    assert logits.grad is not None
    moved = logits.grad.abs().amax((2, 3, 4)) > 0
    assert moved.tolist() == ONLY.tolist()


@pytest.mark.parametrize("settings", [{}, {"include_background": True}])
def test_the_sums_of_two_parts_are_those_of_the_whole_step(settings: dict[str, Any]) -> None:
    outputs, batch = exclusive_batch()
    loss = DiceCE(batch_dice=True, **settings).build(EXCLUSIVE)  # type: ignore[arg-type]
    whole = loss.sums(outputs, batch, None)  # type: ignore[attr-defined]
    parts = [
        loss.sums(  # type: ignore[attr-defined]
            {"logits": outputs["logits"][b : b + 1]}, {name: each[b : b + 1] for name, each in batch.items()}, None
        )
        for b in (0, 1)
    ]
    assert torch.allclose(whole, parts[0] + parts[1], rtol=1e-12)
    number = batch["label"].numel()
    assert whole[0, 1, -1] == number
    plain = summed(outputs["logits"][:1], batch["label"][:1], True, "sum")
    assert torch.allclose(parts[0][0, 0, -1], plain)


@pytest.mark.parametrize("loss", [DiceLoss(batch_dice=True), DiceCE(batch_dice=True)])
def test_a_class_that_no_patch_of_a_step_has_annotated_does_not_count_as_found(loss: Any) -> None:
    outputs, batch = exclusive_batch()
    batch["label"][batch["label"] == 2] = 0
    batch["annotated"] = torch.tensor([[True, False, True]] * 2)
    # By hand: as if background and class 2 were one.
    logits, label = outputs["logits"], batch["label"]
    background = torch.logsumexp(logits[:, [0, 2]], dim=1, keepdim=True)
    merged = {"logits": torch.cat([background, logits[:, [1, 3]]], dim=1)}
    by_hand = loss.build(EXCLUSIVE)(merged, {"label": torch.where(label == 3, 2, label)}, None)
    built = loss.build(EXCLUSIVE)
    parts = [
        built.sums({"logits": logits[b : b + 1]}, {name: each[b : b + 1] for name, each in batch.items()}, None)
        for b in (0, 1)
    ]
    assert built(outputs, batch, None).item() == pytest.approx(by_hand.item(), rel=1e-9)
    assert built.value(parts[0] + parts[1]).item() == pytest.approx(by_hand.item(), rel=1e-9)


def test_where_all_was_annotated_a_loss_is_what_it_is_without_saying_so() -> None:
    outputs, batch = exclusive_batch()
    loss = DiceCE().build(EXCLUSIVE)  # type: ignore[arg-type]
    said = loss(outputs, batch | {"annotated": torch.ones(2, 3, dtype=torch.bool)}, None)  # type: ignore[arg-type]
    assert torch.equal(said, loss(outputs, {"label": batch["label"]}, None))  # type: ignore[arg-type]


def test_annotated_classes_are_said_by_case_in_training_and_validation(tmp_path: Path, cache: Cache) -> None:
    folder = made_up.msd(tmp_path / "task")
    without_inner(folder, 1, 3)
    data = MSD(
        path=folder,
        cache=cache,
        split=SameCases(),
        patch_size=(16, 16, 16),
        annotated={"case_00[13]": ("Anterior",)},
    )
    live = opened(data)
    for batch in (*live.train(0, 0), *live.evaluate("val")):
        for index, row in zip(batch["index"].tolist(), batch["annotated"].tolist(), strict=True):
            assert row == [True, index not in (1, 3)]


@pytest.mark.parametrize(
    ("annotated", "message"),
    [
        ({"case_9*": ("Anterior",)}, '"case_9.*" fits no case'),
        ({"case_*": ("Interior",)}, 'no class "Interior"; did you mean "Anterior"'),
        ({"case_*": ("Anterior",), "*_001": ("Anterior",)}, "both fit the case case_001"),
        ({"case_002": ("Anterior",)}, "case_002: has Posterior, which data.annotated says were not annotated"),
    ],
)
def test_a_mistake_in_what_was_annotated_is_named(
    tmp_path: Path, cache: Cache, annotated: dict[str, tuple[str, ...]], message: str
) -> None:
    data = MSD(path=made_up.msd(tmp_path / "task"), cache=cache, patch_size=(16, 16, 16), annotated=annotated)
    for ask in (lambda: inspected(data), lambda: opened(data)):
        with pytest.raises(DataError, match=message):
            ask()


def test_a_class_that_a_whole_source_lacks_is_doubted_with_the_line_that_says_so(tmp_path: Path, cache: Cache) -> None:
    folder = made_up.nnunet(tmp_path / "task", channels=1, cases=6)
    for part in ("imagesTr", "labelsTr"):
        for path in sorted((folder / part).iterdir()):
            number = int(path.name[5:8])
            path.rename(path.with_name(path.name.replace("case", "siteA" if number < 3 else "siteB")))
            if part == "labelsTr" and number < 3:
                path = path.with_name(path.name.replace("case", "siteA"))
                image = nibabel.load(path)
                made_up.save(path, np.minimum(np.asarray(image.dataobj), 1).astype(np.uint8), image.affine)
    data = MSD(path=folder, cache=cache, split=SameCases(), patch_size=(16, 16, 16))
    doubts = [line for line in inspected(data) if line.startswith("warning")]
    assert len(doubts) == 1
    line = doubts[0].rpartition("data.annotated = ")[2]
    assert line.startswith('{ "siteA*" = ["')
    annotated = {"siteA*": (line.split('"')[3],)}
    said = MSD(path=folder, cache=cache, split=SameCases(), patch_size=(16, 16, 16), annotated=annotated)
    assert not [each for each in inspected(said) if each.startswith("warning")]


def test_lines_for_sources_hold_what_is_said_already_and_fit_no_other_source() -> None:
    names = [f"{source}_{number:02d}" for source in ("liver", "liver_ct", "other") for number in range(3)]
    present = {
        name: {"a": 5, "b": 5 * (not name.startswith("liver_0")), "c": 5 * name.startswith("other"), "d": 0}
        for name in names
    }
    patterns = {"other_00": ("a", "b")}
    annotated = {name: frozenset("ab" if name == "other_00" else "abcd") for name in names}
    said = list(doubts_about_sources("abcd", patterns, annotated, present))
    assert len(said) == 2
    assert "b, c are in none of the 3 cases liver_[0-9]*" in said[0]
    assert "c is in none of the 3 cases liver_ct*" in said[1]
    pasted = tomllib.loads(said[1].rpartition("data.")[2])["annotated"]
    assert pasted == {"other_00": ["a", "b"], "liver_[0-9]*": ["a", "d"], "liver_ct*": ["a", "b", "d"]}
    assert all(sum(fnmatchcase(name, pattern) for pattern in pasted) <= 1 for name in names)


# ---- values that say nothing ----------------------------------------------------------------------------------------


def test_a_class_without_truth_has_no_score_however_much_of_it_is_found() -> None:
    scores = CaseScores("dice", ["a", "b"])
    for case, values, in_truth in (
        ("one", [0.5, 0.0], [True, False]),
        ("two", [0.0, 0.0], [False, False]),
    ):
        batch = {"case": case, "index": torch.tensor([len(case)])}
        scores.add(batch, torch.tensor(values), torch.tensor(in_truth))
    assert scores.means() == {"dice": 0.25, "dice_a": 0.25}


def test_a_class_that_was_not_annotated_has_no_score_in_that_case() -> None:
    scores = CaseScores("dice", ["a", "b"])
    for number, row in enumerate(([True, True], [True, False])):
        batch = {"case": str(number), "index": torch.tensor([number]), "annotated": torch.tensor([row])}
        scores.add(batch, torch.tensor([0.5, 0.25 * number]), torch.tensor([True, number == 0]))
    assert scores.means() == {"dice": 0.25, "dice_a": 0.5, "dice_b": 0.0}


# ---- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_a_class_of_several_subjects_is_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    subjects = {f"case{n:02d}": f"person{n // 2:02d}" for n in range(40)}
    shares = {"rare": 0.06, "usual": 0.6}
    present = {name: {k: int(rng.random() < share) for k, share in shares.items()} for name in subjects}
    split = Fraction(seed=seed)
    plain = split.divide(subjects)
    found = split.balance(plain, subjects, present)
    assert sorted([*found["train"], *found["val"]]) == sorted(subjects)
    assert len(found["val"]) == len(plain["val"])
    assert not {subjects[case] for case in found["train"]} & {subjects[case] for case in found["val"]}
    for k in ("rare", "usual"):
        having = {subjects[case] for case in subjects if present[case][k]}
        in_train, in_val = (any(present[case][k] for case in found[side]) for side in ("train", "val"))
        assert in_train or not having
        assert in_val or len(having) < 2
    if all(any(present[case][k] for case in plain[side]) for side in plain for k in ("rare", "usual")):
        assert found == plain


def test_a_split_can_be_left_as_the_seed_made_it() -> None:
    subjects = {name: name for name in "abcdefghij"}
    split = Fraction(balanced=False)
    plain = split.divide(subjects)
    present = {name: {"k": int(name in plain["val"])} for name in subjects}
    assert split.balance(plain, subjects, present) == plain
    assert Fraction().balance(plain, subjects, present) != plain


def test_check_and_run_divide_alike_and_name_a_class_that_only_one_case_has(
    tmp_path: Path, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made_up.msd(tmp_path / "task")
    held_out = opened(MSD(path=folder, cache=cache, patch_size=(16, 16, 16)))._division["val"]
    without_inner(folder, *(n for n in range(5) if f"case_{n:03d}" not in held_out))
    data = MSD(path=folder, cache=cache, patch_size=(16, 16, 16))
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        live = opened(data)
    message = 'no case of the split "val" has Posterior: it has no score there, because only one case has it'
    assert f"warning: {message}" in inspected(data)
    assert message in caplog.messages
    assert held_out[0] in live._division["train"]


# ---- classes --------------------------------------------------------------------------------------------------------


def test_a_cohort_without_a_class_is_trained_without_it_as_the_message_says(tmp_path: Path, cache: Cache) -> None:
    folder = made_up.brats(tmp_path / "cases")
    for path in folder.glob("*/*_seg.nii.gz"):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        made_up.save(path, np.where(values == 4, 1, values).astype(np.uint8), image.affine)
    for ask in (inspected, opened):
        with pytest.raises(DataError, match="enhancing_tumor") as caught:
            ask(BraTS(path=folder, cache=cache, patch_size=(16, 16, 16)))
        assert 'data.classes = ["whole_tumor", "tumor_core"]' in str(caught.value)
    data = BraTS(path=folder, cache=cache, patch_size=(16, 16, 16), classes=("whole_tumor", "tumor_core"))
    assert next(iter(opened(data).train(0, 0)))["label"].shape[1] == 2
    assert not [line for line in inspected(data) if line.startswith("warning")]
    kept = attrs.evolve(data, classes=None, may_be_absent=("enhancing_tumor",))
    assert next(iter(opened(kept).train(0, 0)))["label"].shape[1] == 3
    assert not [line for line in inspected(kept) if line.startswith("warning")]


@pytest.mark.parametrize("looked_for", [True, False])
def test_a_class_that_no_case_has_can_keep_its_output_and_counts_in_no_mean(
    tmp_path: Path, cache: Cache, caplog: pytest.LogCaptureFixture, looked_for: bool
) -> None:
    folder = made_up.msd(tmp_path, cases=4)
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"]["3"] = "Vessel"
    (folder / "dataset.json").write_text(json.dumps(content))
    others = None if looked_for else {"*": ("Anterior", "Posterior")}
    data = MSD(path=folder, cache=cache, patch_size=(16, 16, 16), may_be_absent=("Vessel",), annotated=others)
    lines = inspected(data)
    assert not [line for line in lines if line.startswith("warning")]
    assert any(line.startswith("Vessel is in no case, and an output of the network all the same") for line in lines)
    with caplog.at_level("INFO", "trainkit"):
        live = opened(data)
    assert any("Vessel is in no case" in message for message in caplog.messages)
    assert live.facts()["classes"] == ["Anterior", "Posterior", "Vessel"]
    metric = LiveDice(live)
    for batch in live.evaluate("val"):
        scores = one_hot(batch["label"][:, 0].long(), 4).movedim(-1, 1).float()
        scores[:, 3, :2] = 9.0  # some of it is found
        metric.update({"logits": scores}, batch)
    found = metric.compute()
    assert set(found) == {"dice", "dice_Anterior", "dice_Posterior"}
    batch = next(iter(live.train(0, 0)))
    logits = torch.zeros(2, 4, 16, 16, 16, requires_grad=True)
    DiceCE().build(live)({"logits": logits}, batch, torch.nn.Identity()).backward()
    assert logits.grad is not None
    pushed = (logits.grad[:, 3] - logits.grad[:, 0])[batch["label"][:, 0] == 0]
    if looked_for:
        assert (pushed > 0).all()  # away from the class, towards the background
    else:
        torch.testing.assert_close(pushed, torch.zeros_like(pushed))  # voxels without label may be of it
    with pytest.raises(DataError, match=r'data.may_be_absent: there is no class "vessels"'):
        attrs.evolve(data, may_be_absent=("vessels",)).cases()


def test_regions_combine_the_values_of_any_data_set(tmp_path: Path, cache: Cache) -> None:
    folder = made_up.brats(tmp_path / "cases", cases=2)
    data = BraTS(path=folder, cache=cache, split=SameCases(), regions={"dead": (1,), "core": (1, 4)}, target="labels")
    live = opened(data)
    assert (live.classes, live.exclusive) == (("dead", "core"), False)
    for case in ("BraTS2021_00000", "BraTS2021_00001"):
        values = np.asarray(nibabel.load(folder / case / f"{case}_seg.nii.gz").dataobj)
        assert np.array_equal(live.truth(case), np.stack([values == 1, (values == 1) | (values == 4)]))
    assert opened(attrs.evolve(data, classes=("core",))).classes == ("core",)
    made = SyntheticSegmentation(num_cases=2, size=(16, 16, 16), patch_size=(16, 16, 16), regions={"both": (1, 2)})
    known = opened(attrs.evolve(made, regions=None)).truth("synthetic_001")
    assert torch.equal(opened(made).truth("synthetic_001"), known > 0)


def test_a_class_that_is_not_trained_is_background() -> None:
    def label(classes: tuple[str, ...] | None) -> torch.Tensor:
        data = SyntheticSegmentation(num_cases=2, size=(16, 16, 16), patch_size=(16, 16, 16), classes=classes)
        live = opened(data)
        return live.truth("synthetic_001")

    both, one = label(None), label(("lesion",))
    assert torch.equal(one, (both == 2).to(one.dtype))


# ---- sides ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "axes", "left_right", "doubted"),
    [
        (["kidney_left", "kidney_right"], (0, 1, 2), {0}, True),
        (["L hippocampus", "R hippocampus"], (0,), {0}, True),
        (["lh-cortex", "rh-cortex"], (1, 2), {0}, False),
        (["lh-cortex", "rh-cortex"], (1, 2), {1}, True),
        (["left ventricle", "right atrium"], (0, 1, 2), {0}, False),
        (["Anterior", "Posterior"], (0, 1, 2), {0}, False),
    ],
)
def test_mirroring_is_doubted_where_classes_differ_in_their_side(
    classes: list[str], axes: tuple[int, ...], left_right: set[int], doubted: bool
) -> None:
    doubt = Flip(axes=axes).mixed_sides(classes, left_right)
    assert (doubt is not None) == doubted
    if doubt:
        rest = [axis for axis in axes if axis not in left_right]
        assert doubt.endswith(f"set data.augmentation.flip.axes = {rest}")
        assert Flip(axes=tuple(rest)).mixed_sides(classes, left_right) is None


def test_check_finds_the_left_right_axis_where_it_is(tmp_path: Path, cache: Cache) -> None:
    folder = made_up.msd(tmp_path / "task")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace("Anterior", "left").replace("Posterior", "right"))
    data = MSD(path=folder, cache=cache, patch_size=(16, 16, 16), augmentation=Augmentation(flip=Flip(axes=(0,))))
    assert [line for line in inspected(data) if "left and right the wrong way round" in line]
    data = MSD(path=folder, cache=cache, patch_size=(16, 16, 16), augmentation=Augmentation(flip=Flip(axes=(1, 2))))
    assert not [line for line in inspected(data) if line.startswith("warning")]
