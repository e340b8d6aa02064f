"""``trainkit run`` of a sweep: one run after the other, what ``--continue`` leaves out, and the table of all."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clients import recorder
from clients.toy_run import TOY

from trainkit import Data, State
from trainkit.cli.run import command
from trainkit.engine.every_run import metrics_file
from trainkit.recipe.resolve import resolve, resolve_all

SWEEP = "\n[sweep]\noptimizer.lr = [1e-2, 1e-3]\n"


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(TOY + SWEEP)


def run(*options: str, recipes: tuple[str, ...] = ("s.toml",)) -> Result:
    recorder.SEEN.clear()
    return CliRunner().invoke(command, [*recipes, *options])


def epochs_run() -> int:
    return sum(event == "epoch_end" for event, _, _ in recorder.SEEN)


def table(result: Result) -> list[list[str]]:
    lines = result.output.rpartition("\nrun ")[2].splitlines()
    return [line.split() for line in lines[1:] if not line.startswith("best:")]


def rows() -> list[dict[str, Any]]:
    with open("runs/toy_sweep/sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_and_the_file_say_what_differs_and_what_it_reached() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    found = rows()
    assert [(row["run"], row["optimizer.lr"], row["what"]) for row in found] == [
        ("lr_0.01", "0.01", "finished"),
        ("lr_0.001", "0.001", "finished"),
    ]
    for row, shown in zip(found, table(result), strict=True):
        lines = metrics_file.read(Path("runs/toy_sweep", row["folder"]))
        best = min(line["val/loss"] for line in lines)
        assert float(row["best"]) == pytest.approx(best, rel=1e-9)
        assert shown[:2] + shown[3:4] == [row["run"], row["optimizer.lr"], f"{best:.5g}"]
    winner = min(found, key=lambda row: float(row["best"]))["run"]
    assert f"best: {winner}, val/loss" in result.output


def test_a_point_that_fails_does_not_keep_the_others_from_running_and_is_made_up_for() -> None:
    def fail(state: State) -> None:
        if "lr_0.01" in str(state.folder):
            raise RuntimeError("full")

    recorder.ACTIONS["epoch_start"] = fail
    result = run()
    assert result.exit_code == 1
    assert [row["what"].partition(":")[0] for row in rows()] == ["failed", "finished"]
    recorder.ACTIONS.clear()
    assert run("--continue").exit_code == 0
    assert epochs_run() == 2
    assert [row["what"] for row in rows()] == ["finished", "skipped: finished already"]
    assert all(row["best"] for row in rows())


def test_continue_goes_on_after_a_stop_and_after_the_table_was_extended() -> None:
    recorder.ACTIONS["step_end"] = lambda state: (
        state.step == 6 and "lr_0.001" in str(state.folder) and state.interrupt("now")
    )
    assert run().exit_code == 75
    assert [row["what"] for row in rows()] == ["finished", "stopped: now"]
    recorder.ACTIONS.clear()
    Path("s.toml").write_text(TOY + SWEEP.replace("1e-3", "1e-3, 1e-4"))
    assert run("--continue").exit_code == 0
    assert epochs_run() == 1 + 2  # what was left of the second run, and the third
    before = sorted(Path("runs/toy_sweep").glob("*/*"))
    # another key, one value of which is that of the runs so far: their names change, the runs are the same
    Path("s.toml").write_text(TOY + SWEEP + "data.batch_size = [8, 16]\n")
    assert run("--continue").exit_code == 0
    assert epochs_run() == 2 * 2
    assert len(sorted(Path("runs/toy_sweep").glob("*/*"))) == len(before) + 2
    assert [(row["data.batch_size"], row["what"] == "finished") for row in rows()] == 2 * [("8", False), ("16", True)]


def test_the_recipe_in_a_run_folder_is_that_of_one_run() -> None:
    run()
    (file,) = Path("runs/toy_sweep/lr_0.01").glob("*/recipe.toml")
    alone = resolve(file)
    assert "[sweep" not in file.read_text()
    assert (alone.point, alone.recipe.optimizer.lr, alone.recipe.run.name) == (None, 0.01, "lr_0.01")


def test_nothing_starts_while_one_point_has_a_mistake() -> None:
    result = run("--set", "sweep.run.seed=[1, -1]")
    assert result.exit_code != 0
    assert "run.seed: must be at least 0, got -1" in str(result.exception)
    assert not Path("runs").exists()


def test_runs_of_several_files_with_one_name_are_told_apart_and_found_again_under_either_name() -> None:
    for number in (1, 2):
        Path(f"file_{number}.toml").write_text(f"{TOY}\n[optimizer]\nlr = 0.0{number}\n")
    assert run(recipes=("file_1.toml",)).exit_code == 0
    both = ("file_1.toml", "file_2.toml")
    result = run("--continue", recipes=both)
    assert epochs_run() == 2  # the run of the first file was made alone, as "toy"
    assert [line[:3] for line in table(result)] == [
        ["toy", "file_1.toml", "0.01"],
        ["toy-file_2", "file_2.toml", "0.02"],
    ]
    assert "2 of the recipes have the name toy; this one is called toy-file_2" in result.output
    for names in (both, ("file_2.toml",)):
        run("--continue", recipes=names)
        assert epochs_run() == 0
    assert run(recipes=both).exit_code == 0
    assert sorted(each.name for each in Path("runs").iterdir()) == ["toy", "toy-file_1", "toy-file_2"]


def test_sweeps_of_several_files_with_one_name_have_folders_of_their_own() -> None:
    Path("t.toml").write_text(TOY + "\n[sweep]\nrun.seed = [1, 2]\n")
    found = resolve_all(["s.toml", "t.toml"])
    assert [each.recipe.run.dir.name for each in found] == 2 * ["toy-s_sweep"] + 2 * ["toy-t_sweep"]
    assert {each.point.folder.name for each in found if each.point} == {"toy-s_sweep", "toy-t_sweep"}


@pytest.mark.slow
def test_each_point_can_be_cross_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    from clients.toy import Line

    monkeypatch.setattr(Line, "settings_of_fold", lambda self, fold, number: {"batch_size": 8 + fold})
    result = run("--folds", "2")
    assert result.exit_code == 0, result.output
    for name in ("lr_0.01", "lr_0.001"):
        members = json.loads(Path(f"runs/toy_sweep/{name}_2folds/ensemble.json").read_text())["members"]
        assert len(members) == 2
    monkeypatch.setattr(Line, "settings_of_fold", Data.settings_of_fold)
    assert "cannot be divided into folds" in str(run("--folds", "2").exception)
