"""Calibration: the numbers are those of plain formulas on whole volumes, and `predict` says what it applies."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from clients.segmentation_cases import msd
from scipy.optimize import brent

from trainkit import Context, DataError, Member, read_checkpoint
from trainkit.cli.calibrate import command as calibrate
from trainkit.cli.predict import command as predict
from trainkit.cli.run import command as run
from trainkit.inference.plain import Plain
from trainkit.recipe.resolve import resolve
from trainkit_segmentation.calibration import boundaries, labellings, segmentation_live
from trainkit_segmentation.calibration.boundaries import beside_boundaries, within
from trainkit_segmentation.calibration.halves import deal
from trainkit_segmentation.calibration.labellings import ScoredCase
from trainkit_segmentation.calibration.likelihood import Voxels, fit_temperature, log_probabilities
from trainkit_segmentation.calibration.reliability import Reliability
from trainkit_segmentation.calibration.report import AFTER, ALL, BEFORE, NEAR, Report
from trainkit_segmentation.calibration.segmentation import SegmentationCalibrator
from trainkit_segmentation.calibration.uncertainty import draw_uncertainty, uncertain_plane
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.losses.annotated import annotated_parts
from trainkit_segmentation.prediction.segmentation import SegmentationPredictor

Array = np.ndarray[Any, Any]
CPU = torch.device("cpu")


# ---- the temperature -------------------------------------------------------------------------------------------------


def drawn(temperature: float, number: int = 40_000) -> Voxels:
    """Return logits, and labels that were drawn at a temperature."""
    rng = np.random.default_rng(0)
    logits_NC = torch.from_numpy(4 * rng.normal(size=(number, 4)))
    label_N = torch.distributions.Categorical(logits=logits_NC / temperature).sample()
    return Voxels(logits_NC, label_N)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_at_which_labels_were_drawn_is_found(temperature: float) -> None:
    torch.manual_seed(0)
    found = fit_temperature([drawn(temperature)])
    assert found.value == pytest.approx(temperature, rel=0.02)
    assert not found.at_end


def test_logits_that_are_three_times_as_large_have_three_times_the_temperature() -> None:
    torch.manual_seed(0)
    voxels = drawn(1.3, 2000)
    larger = voxels._replace(logits_NC=3 * voxels.logits_NC)
    assert fit_temperature([larger]).value == pytest.approx(3 * fit_temperature([voxels]).value, rel=1e-4)


def test_a_voxel_of_weight_two_counts_as_two() -> None:
    torch.manual_seed(0)
    one, other = drawn(1.0, 500), drawn(3.0, 500)
    twice = fit_temperature([one, other._replace(weight=2.0)])
    assert twice.value == pytest.approx(fit_temperature([one, other, other]).value, rel=1e-5)


def test_a_network_that_is_never_wrong_has_a_temperature_at_the_end_of_the_range() -> None:
    logits_NC = torch.eye(3).repeat(10, 1)
    assert fit_temperature([Voxels(logits_NC, logits_NC.argmax(1))]).at_end


def test_classes_that_were_not_annotated_count_as_in_the_loss() -> None:
    torch.manual_seed(0)
    logits_NC, label_N = torch.randn(50, 4), torch.randint(0, 2, (50,)) * 2  # the background and class 2
    log_NC = log_probabilities(logits_NC, 1.0, merged=(1, 3))
    (part,) = annotated_parts(
        logits_NC.T[None, :, :, None, None],
        label_N[None, None, :, None, None],
        torch.tensor([[False, True, False]]),
        None,
        exclusive=True,
    )
    loss = torch.nn.functional.cross_entropy(part.logits, part.label[:, 0].long())
    assert float(-log_NC.gather(1, label_N[:, None]).mean()) == pytest.approx(float(loss), rel=1e-5)
    assert torch.allclose(log_NC.exp().sum(1), torch.ones(50))


# ---- what is measured ------------------------------------------------------------------------------------------------


def plain_measures(probability_NC: Array, label_N: Array, bins: int = 15) -> dict[str, float]:
    """Return the measures voxel by voxel, in float64."""
    confidence_N, right_N = probability_NC.max(1), probability_NC.argmax(1) == label_N
    error = 0.0
    for b in range(bins):
        inside_N = (confidence_N >= b / bins) & (confidence_N < (b + 1) / bins if b + 1 < bins else True)
        if inside_N.any():
            error += inside_N.mean() * abs(right_N[inside_N].mean() - confidence_N[inside_N].mean())
    one_hot_NC = np.eye(probability_NC.shape[1])[label_N]
    return {
        "nll": float(-np.log(probability_NC[np.arange(len(label_N)), label_N]).mean()),
        "brier": float(((probability_NC - one_hot_NC) ** 2).sum(1).mean()),
        "ece": float(error),
        "accuracy": float(right_N.mean()),
        "confidence": float(confidence_N.mean()),
    }


def test_measures_are_those_of_plain_formulas_however_the_voxels_come() -> None:
    torch.manual_seed(0)
    voxels = drawn(2.0, 3000)
    log_NC = log_probabilities(voxels.logits_NC, 1.2)
    expected = plain_measures(log_NC.exp().numpy(), voxels.label_N.numpy())
    whole, joined = Reliability(15), Reliability(15)
    whole.add(log_NC, voxels.label_N)
    for part in range(3):
        of_case = Reliability(15)
        of_case.add(log_NC[part::3], voxels.label_N[part::3])
        joined.take_in(of_case)
    for found in (whole, joined):
        assert found.measures() == pytest.approx(expected, rel=1e-9)
    certain = whole.certain().measures()
    assert certain["ece"] == pytest.approx(1 - expected["accuracy"])
    assert certain["nll"] == float("inf")
    assert certain["brier"] == pytest.approx(2 * (1 - expected["accuracy"]))


@pytest.mark.parametrize("most_voxels", [1, 1 << 22])
def test_a_voxel_is_near_if_one_that_is_beside_a_boundary_is(most_voxels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundaries, "_MOST_VOXELS", most_voxels)
    labels_PUV = np.zeros((9, 7, 8), np.uint8)
    labels_PUV[2:4, 2:5, 3:6], labels_PUV[3, 3, 4:6] = 1, 2
    spacing_mm = (1.5, 0.8, 1.1)
    beside = np.zeros(labels_PUV.shape, dtype=bool)
    for place in np.ndindex(labels_PUV.shape):
        for axis in range(3):
            for step in (-1, 1):
                other = list(place)
                other[axis] += step
                if 0 <= other[axis] < labels_PUV.shape[axis]:
                    beside[place] |= labels_PUV[place] != labels_PUV[tuple(other)]
    assert np.array_equal(beside_boundaries(labels_PUV), beside)
    marked = np.argwhere(beside) * spacing_mm
    for distance_mm in (0.5, 1.7, 3.1):
        expected = np.zeros(labels_PUV.shape, dtype=bool)
        for place in np.ndindex(labels_PUV.shape):
            expected[place] = (np.linalg.norm(marked - np.array(place) * spacing_mm, axis=1) <= distance_mm).any()
        assert np.array_equal(within(beside, spacing_mm, distance_mm), expected)
    assert not within(np.zeros((4, 3, 2), dtype=bool), spacing_mm, 3.0).any()


def test_the_edge_of_what_was_annotated_is_no_boundary() -> None:
    labels_PUV = np.zeros((6, 4, 4), np.uint8)
    labels_PUV[3:] = 1
    ignored_PUV = np.zeros(labels_PUV.shape, dtype=bool)
    ignored_PUV[3:] = True
    assert beside_boundaries(labels_PUV).sum() == 2 * 16
    assert not beside_boundaries(labels_PUV, ignored_PUV).any()


def test_the_cases_of_a_subject_are_in_one_half() -> None:
    subjects = {f"case_{number}": f"subject_{number // 2}" for number in range(12)}
    fitted, measured = deal(subjects, seed=0)
    assert sorted([*fitted, *measured]) == sorted(subjects)
    assert len(fitted) == len(measured) == 6
    assert not {subjects[case] for case in fitted} & {subjects[case] for case in measured}
    assert deal(dict(reversed(subjects.items())), seed=0) == (fitted, measured)
    assert any(deal(subjects, seed)[0] != fitted for seed in range(1, 4))
    with pytest.raises(DataError, match=r"2 cases of 1 subject held out, and a calibration needs two subjects"):
        deal({"a": "s", "b": "s"}, seed=0)


def scored(exclusive: bool, annotated: tuple[bool, ...], **changes: Any) -> ScoredCase:
    """Return a case of 6 × 5 × 4 voxels with a plane cropped on each side of the first axis."""
    rng = np.random.default_rng(3)
    true_LPUV = rng.integers(0, 3, (1, 6, 5, 4)).astype(np.uint8)
    if not exclusive:
        true_LPUV = np.concatenate([true_LPUV > 0, true_LPUV > 1])
    fields = {
        "scores_PKUV": rng.normal(size=(4, 2 + exclusive, 5, 4)).astype(np.float32),
        "box": (slice(1, 5), slice(None), slice(None)),
        "true_LPUV": true_LPUV,
        "ignored_PUV": None,
        "annotated": annotated,
        "exclusive": exclusive,
        "are_logits": True,
        "spacing_mm": (1.0, 1.0, 1.0),
    }
    return ScoredCase(**(fields | changes))


def test_classes_that_overlap_are_looked_at_one_by_one_where_they_were_annotated() -> None:
    case = scored(False, (False, True))
    (labelling,) = case.labellings(1.0)
    (planes,) = labelling.inside()
    z = case.scores_PKUV[:, 1].reshape(-1)
    probability_NC = log_probabilities(planes.logits_NC, 2.0).exp()
    assert np.allclose(probability_NC[:, 1], 1 / (1 + np.exp(-z / 2)))
    assert np.array_equal(planes.label_N, case.true_LPUV[1, 1:5].reshape(-1))
    assert len(list(scored(False, (True, True)).labellings(1.0))) == 2
    assert not list(scored(False, (False, False)).labellings(1.0))


def test_voxels_that_are_ignored_or_were_cropped_count_as_what_they_are() -> None:
    ignored_PUV = np.zeros((6, 5, 4), dtype=bool)
    ignored_PUV[:2] = True  # a plane of the cropped ones, and one of the others
    case = scored(True, (True, True), ignored_PUV=ignored_PUV)
    (labelling,) = case.labellings(1.0)
    assert sum(len(planes.label_N) for planes in labelling.inside()) == 3 * 20
    assert labelling.outside(near=False) == (20, int((case.true_LPUV[0, 5] == 0).sum()))


def test_nothing_depends_on_how_many_planes_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most_values in (1, 1 << 22):
        monkeypatch.setattr(labellings, "_MOST_VALUES", most_values)
        (labelling,) = scored(True, (True, False)).labellings(1.0)
        measures = segmentation_live._empty(15, {BEFORE: 1.0, AFTER: 2.0})
        segmentation_live._measure(labelling, {BEFORE: 1.0, AFTER: 2.0}, measures)
        found.append({key: each.measures() | {"number": each.number} for key, each in measures.items()})
    for key, of in found[0].items():
        assert of == pytest.approx(found[1][key], rel=1e-6), key
    assert found[0][ALL, BEFORE]["number"] == 6 * 5 * 4


def test_a_part_of_the_voxels_stands_for_all_of_them() -> None:
    rng = np.random.default_rng(5)
    shape = (20, 20, 20)
    scores_PKUV = (3 * rng.normal(size=(shape[0], 3, *shape[1:]))).astype(np.float32)
    log_PKUV = log_probabilities(torch.from_numpy(scores_PKUV), 1.7)
    torch.manual_seed(0)
    true_PUV = torch.distributions.Categorical(logits=log_PKUV.movedim(1, -1)).sample().numpy().astype(np.uint8)
    everything = (slice(None),) * 3
    case = scored(True, (True, True), scores_PKUV=scores_PKUV, true_LPUV=true_PUV[None], box=everything)
    (labelling,) = case.labellings(1.0)
    assert labelling.num_near > 7000
    few, all_of_them = (
        list(segmentation_live._sample(labelling, most, torch.Generator().manual_seed(0))) for most in (2000, 1 << 20)
    )
    assert sum(len(each.label_N) for each in all_of_them) == labelling.num_near
    assert sum(len(each.label_N) for each in few) == pytest.approx(2000, rel=0.1)
    assert sum(each.weight * len(each.label_N) for each in few) == pytest.approx(labelling.num_near, rel=0.1)
    assert fit_temperature(few).value == pytest.approx(fit_temperature(all_of_them).value, rel=0.1)


def report(drawn_at: float, fitted: float, **changes: Any) -> Report:
    torch.manual_seed(0)
    voxels = drawn(drawn_at, 4000)
    measures = {}
    for region in (NEAR, ALL):
        for variant, temperature in ((BEFORE, 1.0), (AFTER, fitted)):
            measures[region, variant] = found = Reliability(15)
            found.add(log_probabilities(voxels.logits_NC, temperature), voxels.label_N)
    fields = {
        "settings": SegmentationCalibrator(),
        "temperature": fitted,
        "at_end": False,
        "other": fitted,
        "measures": measures,
        "fitted": ["a"],
        "measured": ["b"],
        "num_networks": {"a": 1, "b": 1},
        "of": 1,
    }
    return Report(**(fields | changes))


def test_a_temperature_that_helps_is_no_doubt_and_one_that_does_not_is_not_applied() -> None:
    good = report(2.0, 2.0)
    assert good.is_better
    assert not list(good.doubts())
    bad = report(2.0, 0.5)
    assert not bad.is_better
    falls, ece = bad.doubts()
    assert "the NLL of the cases that were not fitted to does not fall within 3 mm of a boundary" in falls
    assert "within 3 mm of a boundary the ECE is 0." in ece
    end = report(2.0, 2.0, at_end=True)
    assert not end.is_better
    (doubt,) = end.doubts()
    assert "is at an end of the range from 0.05 to 20" in doubt
    assert any(line.split()[:4] == ["certain", "of", "everything", "inf"] for line in good.lines())
    assert not any("everywhere the NLL rises" in line for line in good.lines())
    measures = good.measures | {(ALL, AFTER): bad.measures[ALL, AFTER]}
    assert any("everywhere the NLL rises" in line for line in report(2.0, 2.0, measures=measures).lines())


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_plane_that_is_shown_is_the_one_with_most_of_the_true_classes(exclusive: bool, tmp_path: Path) -> None:
    case = scored(exclusive, (True, True))
    plane = uncertain_plane(case, {"raw": 1.0, "soft": 2.0})
    number = int((case.true_LPUV[0, 1:5] > 0).sum(axis=(1, 2)).argmax())
    assert np.array_equal(plane.true_LUV, case.true_LPUV[:, 1 + number])
    scores = case.scores_PKUV[number]
    found = scores.argmax(0)[None] if exclusive else scores > 0
    assert np.array_equal(plane.found_LUV, found)
    z = scores / 2
    p = np.exp(z) / np.exp(z).sum(0) if exclusive else 1 / (1 + np.exp(-z))
    entropy = -(p * np.log(p)).sum(0) - (0 if exclusive else ((1 - p) * np.log(1 - p)).sum(0))
    assert np.allclose(plane.entropy_UV["soft"], entropy, atol=1e-5)
    draw_uncertainty({"a": plane}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


# ---- a prediction with a temperature ---------------------------------------------------------------------------------


class Graded(torch.nn.Module):
    """Scores that are multiples of the image."""

    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": torch.cat([factor * batch["image"] for factor in self.factors], 1)}


def files_of(tmp_path: Path, exclusive: bool, name: str, **chosen: Any) -> dict[str, Array]:
    known = SegmentationFacts(
        channels=("MR",),
        classes=("outer", "inner"),
        exclusive=exclusive,
        label_values={0: (), 1: ("outer",), 2: ("inner",) if exclusive else ("outer", "inner")},
        patch_size=(8, 8, 8),
        preprocessing={"normalization": "none"},
        num_training_cases=1,
        training_digest="",
    )
    factors = (0.3, -1.0, 0.8) if exclusive else (1.0, -0.5)
    networks = [Graded(factors), Graded(tuple(2 * each for each in factors))]
    members = tuple(Member(f"network {n}", each, known, Plain()) for n, each in enumerate(networks))
    live = SegmentationPredictor(**chosen).build(members, CPU, lambda progress: None)
    (item,) = live.items([tmp_path / "a.nii"])
    (tmp_path / name).mkdir()
    live.predict(item, tmp_path / name)
    return {path.name: np.asarray(nibabel.load(path).dataobj) for path in (tmp_path / name).glob("*.nii.gz")}


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_a_temperature_changes_probabilities_as_the_formula_says_and_masks_not_at_all(
    tmp_path: Path, exclusive: bool, combine: str
) -> None:
    image_XYZ = np.random.default_rng(0).normal(0, 3, (5, 4, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image_XYZ, np.eye(4)), tmp_path / "a.nii")
    with_entropy = {"combine": combine, "probabilities": True, "entropy": True}
    one = files_of(tmp_path, exclusive, "one", **with_entropy)
    two = files_of(tmp_path, exclusive, "two", temperature=2.0, **with_entropy)
    assert np.array_equal(one["a.nii.gz"], two["a.nii.gz"])
    factors = np.array((0.3, -1.0, 0.8) if exclusive else (1.0, -0.5))

    def of(logits: Array) -> Array:
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) if exclusive else 1 / (1 + np.exp(-logits))

    logits = [image_XYZ[..., None].astype(float) * factors * scale for scale in (1, 2)]
    averaged = sum(logits) / 2
    if combine == "probabilities":
        mean = (of(logits[0]) + of(logits[1])) / 2
        averaged = np.log(mean) if exclusive else np.log(mean / (1 - mean))
    for found, temperature in ((one, 1.0), (two, 2.0)):
        expected = of(averaged / temperature)
        assert np.abs(found["a_probabilities.nii.gz"] - expected).max() < 1e-5
        parts = [expected] if exclusive else [expected, 1 - expected]
        entropy = -sum((part * np.log(part)).sum(-1) for part in parts)
        assert np.abs(found["a_entropy.nii.gz"] - entropy).max() < 3e-5
    assert two["a_entropy.nii.gz"].mean() > one["a_entropy.nii.gz"].mean() + 0.1


# ---- runs ------------------------------------------------------------------------------------------------------------

RECIPE = """
trainkit = 1
[run]
name = "small"
epochs = 4
threads = 1
device = "cpu"
[data]
use = "msd"
path = "task"
patch_size = [16, 16, 16]
steps_per_epoch = 6
split = { use = "fraction", validation_fraction = 0.6 }
[data.preprocessing]
spacing_mm = [1.0, 1.5, 1.5]
[model]
use = "unet"
channels = [4, 8]
[losses.overlap]
use = "dice_ce"
[inference]
use = "sliding_window"
[optimizer]
use = "adam"
lr = 0.02
[checkpoint]
keep_last = 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a data set, the run ``small``, and an ensemble of two folds."""
    folder = tmp_path_factory.mktemp("trained")
    msd(folder / "task", cases=7)
    (folder / "r.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for options in ((), ("--folds", "2")):
            done = CliRunner().invoke(run, ["r.toml", *options])
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def site(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    (tmp_path / "task").symlink_to(trained / "task")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*options: str, name: str = "small") -> Result:
    done = CliRunner().invoke(calibrate, [name, "--device", "cpu", *options])
    assert done.exit_code in (0, 3), done.output
    return done


def written(name: str = "small") -> dict[str, Any]:
    (path,) = Path("runs", name).glob("**/calibration.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_numbers_are_those_of_a_plain_computation_on_whole_volumes(site: Path) -> None:
    fit("--set", "calibrate.bins=10", "--set", "calibrate.boundary_mm=2")
    results = written()["results"]
    (folder,) = Path("runs/small").glob("*/checkpoints")
    recipe = resolve(folder.parent / "recipe.toml").recipe
    data = recipe.data.build(Context(0, CPU, folder=site))
    model = recipe.model.build(data)
    model.load_state_dict(read_checkpoint(folder / "epoch-0004.safetensors")["model"])
    infer = recipe.inference.build(data)
    assert set(results["fitted_on"]) | set(results["measured_on"]) == {b["case"] for b in data.evaluate("val")}
    cases: dict[str, tuple[Array, Array, Array]] = {}
    with torch.inference_mode():
        for batch in data.evaluate("val"):  # by MONAI's windows, not by those of `predict`
            case = batch["case"]
            logits_KXYZ = data.to_original(infer(model.eval(), batch)["logits"][0], case).numpy().astype(np.float64)
            true_XYZ = data.truth(case)[0].numpy()
            beside = beside_boundaries(true_XYZ) | beside_boundaries(logits_KXYZ.argmax(0))
            near = within(beside, data.spacing_mm(case), 2.0)
            cases[case] = logits_KXYZ.reshape(len(logits_KXYZ), -1).T, true_XYZ.reshape(-1), near.reshape(-1)

    def joined(half: str) -> list[Array]:
        return [np.concatenate(each) for each in zip(*(cases[case] for case in results[half]), strict=True)]

    def probabilities(logits_NK: Array, temperature: float) -> Array:
        e_NK = np.exp((logits_NK - logits_NK.max(1, keepdims=True)) / temperature)
        return np.asarray(e_NK / e_NK.sum(1, keepdims=True))

    logits_NK, true_N, near_N = joined("fitted_on")
    chosen = logits_NK[near_N], true_N[near_N]

    def loss(log_temperature: float) -> float:
        return plain_measures(probabilities(chosen[0], np.exp(log_temperature)), chosen[1])["nll"]

    temperature = float(np.exp(brent(loss, brack=(-1, 0, 1))))
    assert results["temperature"] == pytest.approx(temperature, rel=2e-3)
    logits_NK, true_N, near_N = joined("measured_on")
    for region, inside_N in (("near_boundaries", near_N), ("whole_volume", np.ones_like(near_N))):
        for variant, value in (("uncalibrated", 1.0), ("calibrated", results["temperature"])):
            expected = plain_measures(probabilities(logits_NK[inside_N], value), true_N[inside_N], 10)
            found = results[region][variant]
            assert found["num_voxels"] == inside_N.sum()
            assert {name: found[name] for name in expected} == pytest.approx(expected, rel=5e-3)
    rows = rows_of(folder.parent / "calibration" / "cases.csv")
    assert {row["case"]: row["half"] for row in rows} == {
        case: half for half in ("fitted", "measured") for case in results[f"{half}_on"]
    }
    for picture in ("reliability.png", "entropy.png"):
        assert (folder.parent / "calibration" / picture).read_bytes().startswith(b"\x89PNG")


def volumes(out: str, *options: str, name: str = "small") -> tuple[str, dict[str, Array]]:
    done = CliRunner().invoke(
        predict, [name, "task/imagesTr/case_000.nii.gz", "--out", out, "--device", "cpu", *options]
    )
    assert done.exit_code == 0, done.output
    return done.output, {path.name: np.asarray(nibabel.load(path).dataobj) for path in Path(out).glob("*.nii.gz")}


@pytest.mark.slow
def test_predict_applies_what_was_fitted_only_where_it_holds_and_says_so(site: Path) -> None:
    said, _ = volumes("no_calibration", "--probabilities")
    assert "`trainkit calibrate` fits it" in said
    fit()
    (path,) = Path("runs/small").glob("**/calibration.json")
    content, temperature = written(), 1.8
    path.write_text(json.dumps(content | {"predict": {}}))
    assert "holds nothing to apply" in volumes("nothing", "--probabilities")[0]
    path.write_text(json.dumps(content | {"predict": {"temperature": temperature}}))
    said, found = volumes("usual", "--probabilities")
    assert f"confidence: temperature {temperature:.4g}" in said
    _, raw = volumes("raw", "--probabilities", "--temperature", "none")
    _, same = volumes("same", "--probabilities", "--temperature", str(temperature))
    assert np.array_equal(found["case_000.nii.gz"], raw["case_000.nii.gz"])
    assert np.array_equal(found["case_000_probabilities.nii.gz"], same["case_000_probabilities.nii.gz"])
    expected = raw["case_000_probabilities.nii.gz"].clip(1e-5) ** (1 / temperature)
    expected /= expected.sum(-1, keepdims=True)
    certain = raw["case_000_probabilities.nii.gz"].min(-1) > 0.01
    assert certain.any()
    assert np.abs(found["case_000_probabilities.nii.gz"] - expected)[certain].max() < 1e-3
    assert "confidence" not in volumes("mask")[0]  # masks do not depend on it
    for out, why, *options in (
        ("flipped", 'other settings of [predict]: flips is ["x"], was []', "--set", 'predict.flips=["x"]'),
        ("earlier", "fitted for other checkpoints", "--epoch", "3"),
    ):
        said, _ = volumes(out, "--entropy", *options)
        assert "calibration.json is not applied: it was fitted for" in said
        assert why in said
        assert "confidence: temperature" not in said
    path.write_text("{")
    done = CliRunner().invoke(predict, ["small", "task/imagesTr/case_000.nii.gz", "--out", "bad", "--entropy"])
    assert isinstance(done.exception, DataError)
    assert "calibration.json cannot be read" in str(done.exception)


@pytest.mark.slow
def test_a_case_of_an_ensemble_is_predicted_by_the_networks_that_were_not_trained_on_it(site: Path) -> None:
    said = fit(name="small_2folds").output
    assert "is predicted by 1 of the 2 networks, those not trained on it" in said
    content = written("small_2folds")
    assert content["results"]["combine"] == "probabilities"
    assert sorted([*content["results"]["fitted_on"], *content["results"]["measured_on"]]) == [
        f"case_{number:03d}" for number in range(7)
    ]
    assert "small_2folds/calibration/calibration.json" in volumes("of_folds", "--entropy", name="small_2folds")[0]
    Path("runs/pair").mkdir()
    (run_folder,) = Path("runs/small").iterdir()
    members = [f"../small/{run_folder.name}/checkpoints/epoch-000{epoch}.safetensors" for epoch in (3, 4)]
    Path("runs/pair/ensemble.json").write_text(json.dumps({"members": members}))
    assert "networks" not in fit(name="pair").output  # all networks hold out the same cases
    rows = rows_of(Path("runs/pair/calibration/cases.csv"))
    assert {row["num_networks"] for row in rows} == {"2"}


@pytest.mark.slow
def test_cases_that_the_network_was_trained_on_are_never_fitted_to(site: Path) -> None:
    def refused(*options: str) -> str:
        done = CliRunner().invoke(calibrate, ["small", *options])
        assert isinstance(done.exception, DataError), done.output
        return str(done.exception)

    said = refused("--set", 'data.split={ use = "fraction", validation_fraction = 0.6, seed = 5 }')
    assert "the data are not those of the training" in said
    msd(site / "more", cases=9)
    assert "the data are not those of the training" in refused("--set", "data.path=more")
    assert "training.digest" in said


@pytest.mark.slow
def test_the_benchmark_behind_the_page_runs(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(next(Path("runs/small").iterdir())), "--dealings", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[-9:]] == ["one"] * 3 + ["all 2"] * 6
    assert all(re.search(r"\d\.\d{4} -> \d\.\d{4}", line) for line in lines[-9:])


def test_a_calibrator_is_found_by_the_data() -> None:
    assert MSD.calibrator == "segmentation"
