"""Weights that a run begins with from another run: which checkpoint is taken, and what is no run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clients import recorder
from clients.toy_run import PARTS, RECORDER, lines, run

from trainkit import CheckpointError, DataError, State
from trainkit.checkpoint.file import read
from trainkit.printable import printable
from trainkit.recipe.inputs import refuse_missing_inputs
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text, write

FIRST = f"""
trainkit = 1
[run]
name = "first"
epochs = 3
device = "cpu"
{PARTS}{RECORDER}
[monitor]
metric = "train/loss"
[optimizer]
use = "adam"
lr = 0.05
"""
BEGUN = FIRST + '[initial_weights]\npath = "first"\n'


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begins_with(*sets: str) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights with which a run begins, and its log."""
    seen: dict[str, torch.Tensor] = {}

    def keep(state: State) -> None:
        seen.update({name: value.clone() for name, value in state.model.state_dict().items()})

    recorder.ACTIONS["run_start"] = keep
    folder = run(*sets, text=BEGUN).run.state.folder
    return seen, (folder / "log.txt").read_text()


def test_a_run_is_named_and_its_best_checkpoint_is_taken_as_for_a_prediction() -> None:
    first = run(text=FIRST).run.state.folder
    losses = [line["train/loss"] for line in lines(first)]
    best = first / "checkpoints" / f"epoch-{losses.index(min(losses)) + 1:04d}.safetensors"
    weights = read(best)["model"]
    for which in ("first", "runs/first", str(first)):
        seen, log = begins_with(f'initial_weights.path="{which}"', "run.name=second")
        assert all(torch.equal(seen[name], value) for name, value in weights.items())
        assert f"{best.name}: the best of the run, {min(losses):.5g}" in log
        assert printable(f"{len(weights)} of {len(weights)} weights were loaded from {best}") in log


def test_a_group_that_is_frozen_with_weights_that_are_not_from_the_file_is_named() -> None:
    run(text=FIRST)
    last = ("groups.first.parameters=['0.*']", "groups.last.parameters='rest'")
    late = ("run.name=second", *last, "groups.first.start_epoch=2")
    _, log = begins_with(*late)
    assert "does not train" not in log
    _, log = begins_with(*late, "initial_weights.skip=['first']")
    assert (
        "group first does not train in the first 2 epochs, and not all of its weights are from the file: 0.weight"
        in log
    )
    _, log = begins_with(*late, "initial_weights.skip=['last']")
    assert "does not train" not in log


def test_a_run_of_the_same_name_is_the_one_before_and_not_the_one_that_begins() -> None:
    first = run(text=FIRST).run.state.folder
    _, log = begins_with()
    assert printable(f"weights were loaded from {first}/checkpoints/") in log


def test_the_resolved_recipe_names_the_folder_so_it_means_the_same_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    found = resolve_text(BEGUN, tmp_path / "recipes")
    assert found.tree["initial_weights"]["path"] == str(tmp_path / "runs" / "first")
    assert resolve_text(write(found.tree), Path("/elsewhere"), resolved=True).tree == found.tree


def test_a_name_from_the_environment_is_written_as_a_reference_below_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEGUN_FROM", "first")
    (tmp_path / "runs" / "first").mkdir(parents=True)
    found = resolve_text(BEGUN.replace('path = "first"', 'path = "${env.BEGUN_FROM}"'), tmp_path / "recipes")
    assert found.tree["initial_weights"]["path"] == f"{tmp_path}/runs/${{env.BEGUN_FROM}}"
    assert resolve_text(write(found.tree), Path("/elsewhere"), resolved=True).recipe == found.recipe


def test_a_name_that_no_run_has_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "fist").mkdir(parents=True)
    with pytest.raises(InvalidRecipe, match=r"there is no .*/first(.|\n)*runs/ has no run .* \"fist\""):
        refuse_missing_inputs([resolve_text(BEGUN, tmp_path)])


def test_facts_that_the_model_does_not_read_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match=r"initial_weights\.facts\.channels: the model reads no such fact"):
        resolve_text(BEGUN, tmp_path, ["initial_weights.facts.channels=['T1']"])


def test_a_folder_without_a_run_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    for path in ("first", ""):
        with pytest.raises(InvalidRecipe, match="is no run folder, and there is none in it"):
            refuse_missing_inputs([resolve_text(BEGUN, tmp_path, [f'initial_weights.path="{path}"'])])
    (tmp_path / "runs" / "first" / "one" / "checkpoints").mkdir(parents=True)
    refuse_missing_inputs([resolve_text(BEGUN, tmp_path)])


def test_a_folder_that_is_no_run_and_an_ensemble_are_refused(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with pytest.raises(CheckpointError, match=r"there is no run at .*/first"):
        run(text=BEGUN)
    for name in ("a", "b"):
        run(f"run.name={name}", text=FIRST)
    (tmp_path / "first" / "ensemble.json").write_text('{"members": ["../runs/a", "../runs/b"]}')
    with pytest.raises(DataError, match=r"is an ensemble of 2 models; name one: .*/a/.*, .*/b/"):
        run(text=BEGUN)
