"""What is fitted to held-out items is kept beside the run, and a prediction uses it only if it was fitted for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from clients import toy_run

from trainkit import CheckpointError, RecipeError
from trainkit.console import Console
from trainkit.engine.calibration import calibrate
from trainkit.engine.prediction.predict import predict
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice
from trainkit.recipe.problems import InvalidRecipe

TEXT = """
trainkit = 1
[run]
name = "points"
epochs = 2
device = "cpu"
[data]
use = "clients.calibrating:Measured"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
[checkpoint]
keep_last = 9
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs seed-0 and seed-1."""
    folder = tmp_path_factory.mktemp("trained")
    for seed in (0, 1):
        toy_run.kept(folder, f"seed-{seed}", f"run.seed={seed}", text=TEXT)
    return folder


@pytest.fixture(autouse=True)
def _site(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        shutil.copytree(trained / f"seed-{seed}", tmp_path / f"seed-{seed}")
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.txt").write_text("1 2 3")


def fit(capsys: pytest.CaptureFixture[str], run: str = "seed-0", **options: Any) -> tuple[ExitCode, str]:
    code = calibrate(Path(run), Console(), **{"device": "cpu", "allow_code": True, **options})
    return code, capsys.readouterr().out


def apply(capsys: pytest.CaptureFixture[str], out: str, *runs: str, **options: Any) -> tuple[float, str]:
    """Return the number that is predicted, and what is said of the calibration."""
    paths = [Path(each) for each in runs or ("seed-0",)]
    code = predict(paths, [Path("in")], Path(out), Console(), device="cpu", allow_code=True, **options)
    assert code is ExitCode.FINISHED
    said = [line for line in capsys.readouterr().out.splitlines() if "calibrat" in line]
    return float(Path(out, "a.out").read_text()), "\n".join(said)


def test_what_was_fitted_is_applied_until_the_prediction_is_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    plain, said = apply(capsys, "plain")
    assert said == "confidence: as the network has it; `trainkit calibrate` fits it to held-out items"
    code, said = fit(capsys)
    assert (code, "the scale is 10" in said) == (ExitCode.FINISHED, True)
    assert "warning: bad.png cannot be drawn: RuntimeError: no ink" in said
    folder = Path("seed-0/calibration")
    assert sorted(each.name for each in folder.iterdir()) == ["calibration.json", "cases.csv", "good.png", "log.txt"]
    assert "the scale is 10" in (folder / "log.txt").read_text()
    content = json.loads((folder / "calibration.json").read_text())
    assert (content["predict"], content["results"]) == ({"scale": 10.0}, {"held_out": [1]})
    found, said = apply(capsys, "fitted")
    assert found == pytest.approx(10 * plain, rel=1e-5)
    assert said == "confidence: scale 10, of seed-0/calibration/calibration.json"
    assert apply(capsys, "own", sets=["predict.scale=2"]) == (pytest.approx(2 * plain, rel=1e-5), "")
    _, said = apply(capsys, "more", sets=["predict.extra=true"])
    assert "is not applied: it was fitted for other settings of [predict]: extra is true, was false" in said
    _, said = apply(capsys, "earlier", choice=Choice(epoch=1))
    assert "is not applied: it was fitted for other checkpoints or another [inference]: epoch-0002" in said
    _, said = apply(capsys, "both", "seed-0", "seed-1")
    assert "is not applied: several runs are given, and it was fitted for one of them" in said
    _, said = apply(capsys, "checkpoint", "seed-0/checkpoints/epoch-0002.safetensors")
    assert "confidence: scale 10" in said


def test_an_ensemble_has_a_calibration_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Path("both").mkdir()
    Path("both/ensemble.json").write_text(json.dumps({"members": ["../seed-0", "../seed-1"]}))
    fit(capsys, "both")
    assert json.loads(Path("both/calibration/calibration.json").read_text())["results"] == {"held_out": [1, 1]}
    assert "confidence: scale 10" in apply(capsys, "out", "both")[1]
    Path("both/ensemble.json").write_text(json.dumps({"members": ["../seed-1", "../seed-0"]}))
    assert "confidence: scale 10" in apply(capsys, "turned", "both")[1]
    assert "as the network has it" in apply(capsys, "one", "seed-0")[1]


def test_what_does_not_help_is_a_doubt_and_is_not_applied(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fit(capsys, sets=["calibrate.doubtful=true"])
    assert (code, "doubtful: it does not help" in said) == (ExitCode.DOUBTFUL, True)
    found, said = apply(capsys, "out")
    assert "holds nothing to apply: what was fitted was not better on other held-out items" in said
    assert found == apply(capsys, "same", sets=["predict.scale=1"])[0]


@pytest.mark.parametrize("damage", ["", "[]", '{"format": 2}', '{"format": 1, "predict": {"skale": 2}}'])
def test_a_damaged_calibration_is_one_message(capsys: pytest.CaptureFixture[str], damage: str) -> None:
    fit(capsys)
    path = Path("seed-0/calibration/calibration.json")
    content = json.loads(path.read_text())
    if "skale" in damage:
        damage = json.dumps(content | json.loads(damage))
    path.write_text(damage)
    with pytest.raises(Exception, match=r"calibration.json cannot be read: .*calibrate` writes it anew"):
        apply(capsys, "out")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["calibrate.too=2"], "did you mean"),
        (["calibrate.to=wide"], "must be a number"),
        (["run.epochs=2"], "has no effect on a prediction"),
        (["predict.skale=2"], "did you mean"),
    ],
)
def test_wrong_settings_are_mistakes_with_a_place(
    capsys: pytest.CaptureFixture[str], sets: list[str], said: str
) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        fit(capsys, sets=sets)


def test_data_without_a_calibrator_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.calibrating.Measured.calibrator", None)
    with pytest.raises(RecipeError, match="nothing is calibrated with Measured: it has no calibrator"):
        fit(capsys)
    with pytest.raises(CheckpointError, match="there is no run at nowhere"):
        fit(capsys, "nowhere")
