"""``trainkit run --folds``: a run for each fold, which goes on by itself, and an ensemble when all are finished."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest
from click.testing import CliRunner, Result
from clients import recorder
from clients.toy import Line
from clients.toy_run import TOY, resume

from trainkit import Data, RecipeError
from trainkit.cli.run import command
from trainkit.engine.every_run import metrics_file
from trainkit.engine.folds import value_table


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(TOY)
    monkeypatch.setattr(Line, "settings_of_fold", lambda self, fold, number: {"batch_size": 8 + fold})


def run(*options: str, folds: int = 3) -> Result:
    return CliRunner().invoke(command, ["r.toml", "--folds", str(folds), *options])


def epochs_run() -> int:
    return sum(event == "epoch_end" for event, _, _ in recorder.SEEN)


def members() -> list[str]:
    found: list[str] = json.loads(Path("runs/toy_3folds/ensemble.json").read_text())["members"]
    return found


def test_the_values_of_all_folds_are_shown_and_an_ensemble_is_left() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    folder = Path("runs/toy_3folds")
    assert [re.sub(r"/.*", "", each) for each in members()] == ["fold_0", "fold_1", "fold_2"]
    best = [
        min(line["val/loss"] for line in metrics_file.read(folder / each) if "seconds" in line) for each in members()
    ]
    assert len(set(best)) == 3
    (line,) = re.findall(r"^val/loss +(.*)$", result.output, re.M)
    assert line.split() == [*(f"{each:.4g}" for each in best), f"{mean(best):.4g}", "±", f"{stdev(best):.2g}"]
    assert "trainkit predict runs/toy_3folds" in result.output


def test_a_stop_ends_all_folds_and_continue_does_what_is_left() -> None:
    recorder.ACTIONS["step_end"] = lambda state: (
        state.step == 6 and "fold_1" in str(state.folder) and state.interrupt("now")
    )
    result = run()
    assert (result.exit_code, Path("runs/toy_3folds/ensemble.json").exists()) == (75, False)
    assert not Path("runs/toy_3folds/fold_2").exists()
    recorder.ACTIONS.clear()
    recorder.SEEN.clear()
    assert run("--continue").exit_code == 0
    assert epochs_run() == 1 + 2  # what was left of fold 1, and fold 2
    before = Path("runs/toy_3folds/ensemble.json").read_bytes()
    recorder.SEEN.clear()
    assert run("--continue").exit_code == 0
    assert (epochs_run(), Path("runs/toy_3folds/ensemble.json").read_bytes()) == (0, before)


def test_a_fold_that_was_resumed_on_its_own_is_not_trained_again() -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.step == 6 and state.interrupt("now")
    assert run().exit_code == 75
    recorder.ACTIONS.clear()
    resume(Path("toy_3folds/fold_0"))
    recorder.SEEN.clear()
    assert run("--continue").exit_code == 0
    assert epochs_run() == 2 + 2


def test_folds_that_are_trained_one_by_one_are_those_of_one_command_and_the_last_one_makes_the_ensemble() -> None:
    assert run("--set", 'run.dir="at_once"').exit_code == 0
    for number, fold in enumerate("201"):
        result = run("--fold", fold)
        assert result.exit_code == 0, result.output
        assert (f"{2 - number} of 3 folds are not finished" in result.output) == (number < 2)
        assert Path("runs/toy_3folds/ensemble.json").exists() == (number == 2)
    assert len(members()) == 3
    assert Path("runs/toy_3folds/folds.csv").read_text() == Path("at_once/toy_3folds/folds.csv").read_text()
    recorder.SEEN.clear()
    assert run("--fold", "0", "--fold", "2", "--continue").exit_code == 0
    assert not epochs_run()


@pytest.mark.parametrize(
    ("options", "said"), [(["--fold", "3"], "the last is 2"), (["--fold", "-1"], "-1 is not in the")]
)
def test_a_fold_that_there_is_not_is_refused(options: list[str], said: str) -> None:
    result = run(*options)
    assert (result.exit_code, said in result.output) == (2, True)
    alone = CliRunner().invoke(command, ["r.toml", "--fold", "0"])
    assert (alone.exit_code, "--fold needs --folds" in alone.output) == (2, True)
    assert not Path("runs").exists()


def test_there_is_no_ensemble_while_a_fold_has_failed() -> None:
    def fail(state: object) -> None:
        if "fold_1" in str(getattr(state, "folder", "")):
            raise RuntimeError("full")

    recorder.ACTIONS["epoch_start"] = fail
    result = run()
    assert result.exit_code == 1
    assert "1 of 3 folds are not finished, so there is no ensemble yet" in result.output
    assert not Path("runs/toy_3folds/ensemble.json").exists()
    recorder.ACTIONS.clear()
    assert run("--continue").exit_code == 0
    assert len(members()) == 3


def test_data_that_cannot_be_divided_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "settings_of_fold", Data.settings_of_fold)
    result = run()
    assert isinstance(result.exception, RecipeError)
    assert "Line cannot be divided into folds" in str(result.exception)
    assert not Path("runs").exists()


def test_a_value_that_some_folds_lack_is_averaged_over_the_others() -> None:
    lines = list(value_table([{"val/dice": 0.5, "val/dice_b": 0.25}, {"val/dice": 0.7}]))
    assert lines[1].split() == ["val/dice", "0.5", "0.7", "0.6", "±", "0.14"]
    assert lines[2].split() == ["val/dice_b", "0.25", "-", "0.25", "(1", "folds)"]
