"""A run is repeated with each half of its evidence, and what both have in common is kept beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from clients import recorder, toy_run

from trainkit import RecipeError
from trainkit.console import Console
from trainkit.engine.halves import compare_halves
from trainkit.engine.start import ExitCode, no_report

TEXT = """
trainkit = 1
[run]
name = "points"
epochs = 2
device = "cpu"
[data]
use = "clients.halving:Halves"
[model]
use = "clients.toy:Perceptron"
[losses.squares]
use = "clients.toy:Squares"
[ema]
decay = 0.9
[hooks.recorder]
use = "clients.recorder:Recorder"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run."""
    folder = tmp_path_factory.mktemp("trained")
    toy_run.kept(folder, "whole", text=TEXT)
    return folder


@pytest.fixture(autouse=True)
def _there(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on a copy of the run: comparisons stay beside it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def compare(capsys: pytest.CaptureFixture[str], *sets: str, quiet: bool = False) -> tuple[ExitCode, str]:
    code = compare_halves(Path("whole"), Console(quiet), sets=sets, allow_code=True, report=no_report)
    return code, capsys.readouterr().out


def test_both_halves_are_trained_once_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = compare(capsys)
    assert code is ExitCode.FINISHED
    assert "both have lines in metrics.jsonl: 2 and 2" in said
    folder = Path("whole/resolution")
    beside = ["log.txt", "toys.csv", "toys.json", "toys.png"]
    assert sorted(each.name for each in folder.iterdir()) == ["half_1", "half_2", *beside]
    content = json.loads((folder / "toys.json").read_text())
    assert content["batch_sizes"] == [2, 4]  # each half has a recipe of its own
    runs = sorted(folder.glob("half_*/*"))
    assert len(runs) == 2

    code, said = compare(capsys)  # again: nothing is trained anew
    assert said.count("skipped") == 2
    assert sorted(folder.glob("half_*/*")) == runs

    code, said = compare(capsys, "resolution.doubtful=true")  # a setting of the comparison changes no run
    assert (code, said.count("skipped")) == (ExitCode.DOUBTFUL, 2)
    assert "doubtful: they are toys" in said

    code, said = compare(capsys, "run.epochs=1")  # one of the recipe makes other runs
    assert "metrics.jsonl: 1 and 1" in said
    assert len(sorted(folder.glob("half_*/*"))) == 4


def test_what_is_dropped_on_the_command_line_is_dropped_beside_what_the_halves_lack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare(capsys, 'drop=["hooks.recorder"]')
    recipes = [each.read_text() for each in Path("whole/resolution").glob("half_*/*/recipe.toml")]
    assert sum("[ema]" not in text and "[hooks.recorder]" not in text for text in recipes) == 2


def test_a_doubtful_half_makes_the_comparison_doubtful(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.doubt("the toy is upside down")
    try:
        code, said = compare(capsys, "run.seed=7")
    finally:
        recorder.ACTIONS.clear()
    assert code is ExitCode.DOUBTFUL
    expected = [f"half_{half}: the toy is upside down" for half in (1, 2)]
    assert json.loads(Path("whole/resolution/toys.json").read_text())["doubts"] == expected
    assert f"doubtful: {expected[0]}" in said


def test_a_quiet_comparison_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = Path("whole/resolution/log.txt")
    log.unlink(missing_ok=True)
    assert compare(capsys, quiet=True) == (ExitCode.FINISHED, "")
    assert "both have lines in metrics.jsonl: 2 and 2" in log.read_text()


def test_mistakes_are_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"resolution\.nix: unknown key"):
        compare(capsys, "resolution.nix=1")
    with pytest.raises(RecipeError, match="epochs"):
        compare(capsys, "run.epochs=-1")
    monkeypatch.setattr("clients.halving.Halves.halver", None)
    with pytest.raises(RecipeError, match="no resolution is measured with Halves: it has no halver"):
        compare(capsys)
