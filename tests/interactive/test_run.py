"""Runs from Python are the runs of the command line: the same folders, the same values, the same bits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from clients import toy_run
from clients.predicting import Points
from clients.recorder import ACTIONS
from clients.toy import Perceptron, Squares
from same import same, trained

import trainkit
from trainkit import Recipe, RecipeError, Run, TrainkitError, open_run, read_checkpoint
from trainkit.recipe.resolve import resolve_text

TABLES = {
    "trainkit": 1,
    "run": {"name": "toy", "epochs": 2, "device": "cpu"},
    "data": {"use": "clients.predicting:Points"},
    "model": {"use": "clients.toy:Perceptron"},
    "losses": {"squares": {"use": "clients.toy:Squares"}},
    "hooks": {"recorder": {"use": "clients.recorder:Recorder"}},
}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def started(changes: dict[str, object] | None = None) -> Run:
    return Run(TABLES, changes, quiet=True).fit()


def content(run: Run) -> dict[str, object]:
    return trained(read_checkpoint(run.checkpoints[-1]))


def test_a_run_from_python_has_the_bits_of_the_command_line_and_so_has_a_second_one_in_the_same_process():
    by_command = toy_run.run(text=Run(TABLES).toml)
    assert by_command.newest is not None
    first, second = started(), started()
    assert first.folder != second.folder
    for run in (first, second):
        assert same(content(run), trained(read_checkpoint(by_command.newest)))


def test_metrics_are_the_rows_of_the_file_and_columns_can_be_taken_by_name():
    run = started({"run.epochs": 3})
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert list(map(dict, run.metrics)) == lines
    assert run.metrics["train/loss"] == [line["train/loss"] for line in lines]
    assert run.metrics[-1]["finished_epochs"] == 3
    with pytest.raises(KeyError, match=r"no column 'val/dice'; there are finished_epochs, step, .*val/loss"):
        run.metrics["val/dice"]


def test_values_that_were_computed_inside_epochs_stand_apart():
    run = started({"validation.every_steps": 1})
    assert [row["step"] for row in run.metrics_within_epochs] == [1, 2, 3, 5, 6, 7]
    assert len(run.metrics) == 2


def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_interrupted():
    straight = started({"run.epochs": 4})
    run = started()
    assert run.resume(epochs=4) is run
    assert run.recipe.run.epochs == 4
    assert same(content(run), content(straight))


def test_an_interrupted_fit_says_so_and_the_next_one_ends_with_the_same_bits():
    straight = started()
    run = Run(TABLES, quiet=True)

    def interrupt(state: trainkit.State) -> None:
        if state.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    ACTIONS["step_end"] = interrupt
    with pytest.raises(KeyboardInterrupt, match=r"SIGINT: the run is saved in .*; fit\(\) goes on"):
        run.fit()
    assert run.state == "stopped: signal SIGINT"
    ACTIONS.clear()
    assert run.fit().state == "finished"
    assert same(content(run), content(straight))


def test_a_run_that_is_resumed_from_python_goes_on_after_an_edit(monkeypatch):
    from trainkit.engine import journal
    from trainkit.engine.every_run import requests

    monkeypatch.setattr(requests, "_BETWEEN_LOOKS_SECONDS", 0.0)
    run = started()

    def edit(state: trainkit.State) -> None:
        if state.step == 9:
            journal.ask(state.folder, "edit", sets=("optimizer.lr=0.07",))

    ACTIONS["step_end"] = edit
    run.resume(epochs=4)
    assert (run.state, run.metrics[-1]["finished_epochs"]) == ("finished", 4)
    assert run.metrics["lr/other"][-1] == 0.07


def test_a_branch_has_a_folder_of_its_own_and_names_its_parent():
    run = started({"run.epochs": 3})
    before = content(run)
    branch = run.branch({"optimizer.lr": 1e-4}, epoch=1)
    assert branch.folder != run.folder
    assert (branch.recipe.optimizer, run.recipe.optimizer) != (run.recipe.optimizer, branch.recipe.optimizer)
    assert json.loads((branch.folder / "run.json").read_text())["parent"]["run"] == run.folder.name
    assert branch.metrics[0] == run.metrics[0]
    assert branch.metrics[1]["val/loss"] != run.metrics[1]["val/loss"]
    assert same(content(run), before)


def test_a_run_that_another_program_trained_can_be_opened_looked_at_and_continued():
    folder = toy_run.run(text=Run(TABLES).toml).run.state.folder
    with pytest.raises(RecipeError, match="allow-code"):
        open_run(folder)
    run = open_run("toy", allow_code=True, quiet=True)
    assert run.folder.samefile(folder)
    assert (run.state, len(run.metrics), run.name) == ("finished", 2, "toy")
    assert run.best is not None
    assert run.best.value == min(run.metrics["val/loss"])
    assert run.best.path in run.checkpoints
    assert len(run.resume(epochs=3).metrics) == 3


def test_a_trained_model_is_loaded_without_its_data():
    run = started()
    import torch

    model = run.load_model()
    assert not model.training
    saved = read_checkpoint(run.best.path if run.best else run.checkpoints[-1])
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved["model"][name])


def test_a_recipe_of_components_in_code_is_that_of_the_same_tables():
    in_code = TABLES | {"data": Points(), "model": Perceptron(), "losses": {"squares": Squares()}}
    assert Run(in_code).toml == Run(TABLES).toml
    recipe = Run(TABLES).recipe
    assert isinstance(recipe, Recipe)
    assert Run(recipe).toml == Run(TABLES).toml


def test_changes_are_those_of_set():
    changes = {"run.epochs": 5, "groups": {"all": {"lr": 0.25}}, "data": Points(batch_size=3), "run.dir": Path("kept")}
    run = Run(TABLES | {"groups": {"all": {"parameters": ["*"]}}}, changes)
    as_text = ("run.epochs=5", "groups.all.lr=0.25", "data.batch_size=3", "run.dir=kept")
    text = Run(TABLES | {"groups": {"all": {"parameters": ["*"]}}}).toml
    assert run.toml == Run(resolve_text(text, Path.cwd(), as_text).recipe).toml


def test_a_shipped_recipe_is_known_by_its_name_unless_a_file_has_it():
    assert Run("ptycho_staged").name == "ptycho_staged"
    Path("ptycho_staged").write_text(Run(TABLES).toml)
    assert Run("ptycho_staged").name == "toy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run.epoch": 3}, r"run.epoch: unknown key\n.*did you mean \"epochs\""),
        ({"run.epochs": None}, r'run.epochs is None.*"drop": \["run.epochs"\]'),
        ({"optimizer.lr": 1 + 2j}, "optimizer.lr is of type complex"),
        ({"run.epochs": "five"}, "run.epochs"),
    ],
)
def test_mistakes_are_found_before_anything_runs(changes, message):
    with pytest.raises(RecipeError, match=message):
        Run(TABLES, changes)
    assert not list(Path().iterdir())


def test_what_a_run_has_not_yet_is_said():
    run = Run(TABLES)
    assert (run.state, len(run.metrics), run.checkpoints, run.best, run.pictures) == ("not started", 0, [], None, {})
    with pytest.raises(TrainkitError, match=r"the run toy has not started.*fit\(\) starts it"):
        _ = run.folder
    with pytest.raises(TrainkitError, match=r"holds no result file.*load_model"):
        _ = started().result


def test_a_run_that_failed_says_so_and_goes_on_from_its_last_checkpoint():
    straight = started()
    run = Run(TABLES, quiet=True)

    def fail(state: trainkit.State) -> None:
        if state.epoch == 1:
            raise ValueError("the disk is full")

    ACTIONS["step_end"] = fail
    with pytest.raises(TrainkitError, match="the disk is full"):
        run.fit()
    assert run.state == "failed: PartError"
    ACTIONS.clear()
    assert same(content(run.fit()), content(straight))


def test_a_script_that_a_launcher_started_in_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a launcher started this command in 2 processes"):
        Run(TABLES, quiet=True).fit()


def test_the_plan_has_the_rate_of_each_group_in_each_epoch():
    plan = Run("ptycho_staged").plan()
    assert plan["finished_epochs"] == list(range(Run("ptycho_staged").recipe.run.num_epochs()))
    starts = {
        name: rates.index(next(each for each in rates if each))
        for name in plan.columns
        if name != "epoch"
        for rates in [plan[name]]
        if any(rates)
    }
    groups = Run("ptycho_staged").recipe.groups
    assert {name: starts[name] for name in groups} == {name: each.start_epoch or 0 for name, each in groups.items()}


def test_tables_show_as_text_and_html_and_escape_what_is_in_names():
    run = Run(TABLES | {"run": {"name": "a & b", "epochs": 1}})
    assert "<b>a &amp; b</b>: not started" in run._repr_html_()
    assert repr(run) == "<Run 'a & b': not started>"
    rows = trainkit.Run(TABLES, {"run.epochs": 100}).plan()
    assert repr(rows).splitlines()[0].split() == list(rows.columns)
    assert len(repr(rows).splitlines()) == 62  # a head, 60 rows, and dots
    assert rows._repr_html_().count("<tr>") == 62
