from __future__ import annotations

from pathlib import Path

import pytest
from clients.toy_run import PARTS

from trainkit.engine.verify import verify
from trainkit.recipe.resolve import resolve

TOY = f"""
trainkit = 1
[run]
epochs = 4
device = "cpu"
[checkpoint]
keep_last = 1000
{PARTS}[hooks.extra]
use = "clients.toy:Count"
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.mark.slow
def test_it_proves_a_recipe_that_resumes_exactly() -> None:
    Path("toy.toml").write_text(TOY)
    Path("trainkit").mkdir()
    Path("trainkit/__init__.py").write_text("raise RuntimeError('this must not hide what is installed')")
    said: list[str] = []
    assert verify(resolve("toy.toml"), epochs=2, num_stops=1, say=said.append)
    assert sum("the same, to the bit" in line for line in said) == 3
    assert "validation_step_end" in said[-1]
    assert any("step 4 of epoch 0" in line for line in said)


@pytest.mark.slow
def test_it_says_where_a_part_that_forgets_makes_the_runs_differ() -> None:
    Path("toy.toml").write_text(TOY.replace("clients.toy:Count", "clients.forgetful:Forgetful"))
    said: list[str] = []
    assert not verify(resolve("toy.toml"), epochs=2, num_stops=0, say=said.append)
    text = "\n".join(said)
    assert "stopped before epoch 1: DIFFERENT" in text
    assert "first in epoch 1: train/loss" in text
    assert "/model/0.weight: differs by up to" in text


@pytest.mark.slow
def test_a_run_whose_length_is_given_in_steps_is_compared_for_as_many_epochs_as_it_has() -> None:
    Path("toy.toml").write_text(TOY.replace("epochs = 4", "steps = 6"))
    said: list[str] = []
    assert verify(resolve("toy.toml"), epochs=5, num_stops=0, say=said.append)
    assert said[0].startswith("2 epochs of 4 steps")  # the second is cut short
