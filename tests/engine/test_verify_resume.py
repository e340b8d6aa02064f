from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from clients.toy_run import PARTS
from clients.warm import Warm

from trainkit import RecipeError
from trainkit.cli import cli
from trainkit.engine.verify import differences, trained, verify
from trainkit.engine.verify_processes import _run, verify_processes
from trainkit.recipe.resolve import resolve, resolve_text

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


@pytest.fixture
def _warm_processes(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new processes be forked from one that has imported torch."""
    monkeypatch.setattr("trainkit.engine.verify.subprocess", warm)
    monkeypatch.setattr("trainkit.engine.verify_processes.subprocess", warm)


class _FirstAsUsersDo:
    """Starts the first process as `subprocess` does, and forks those after it, which have the same command line."""

    def __init__(self, warm: Warm) -> None:
        self._warm = warm
        self.commands: list[list[str]] = []

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return (self._warm if len(self.commands) > 1 else subprocess).run(command, **options)


@pytest.mark.slow
def test_it_proves_a_recipe_that_resumes_exactly(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.engine.verify.subprocess", started := _FirstAsUsersDo(warm))
    Path("toy.toml").write_text(TOY)
    Path("trainkit").mkdir()
    Path("trainkit/__init__.py").write_text("raise RuntimeError('this must not hide what is installed')")
    said: list[str] = []
    assert verify(resolve("toy.toml"), epochs=2, num_stops=1, say=said.append)
    assert sum("the same, to the bit" in line for line in said) == 3
    assert "validation_step_end" in said[-1]
    assert any("stopped after 4 steps" in line for line in said)
    assert [command[:3] for command in started.commands] == 3 * [[sys.executable, "-P", "-c"]]


@pytest.mark.slow
@pytest.mark.usefixtures("_warm_processes")
def test_it_says_where_a_part_that_forgets_makes_the_runs_differ() -> None:
    Path("toy.toml").write_text(TOY.replace("clients.toy:Count", "clients.forgetful:Forgetful"))
    said: list[str] = []
    assert not verify(resolve("toy.toml"), epochs=2, num_stops=0, say=said.append)
    text = "\n".join(said)
    assert "stopped after 1 epoch: DIFFERENT" in text
    assert "first in epoch 2: train/loss" in text
    assert "/model/0.weight: differs by up to" in text


@pytest.mark.slow
@pytest.mark.usefixtures("_warm_processes")
def test_a_run_whose_length_is_given_in_steps_is_compared_for_as_many_epochs_as_it_has() -> None:
    Path("toy.toml").write_text(TOY.replace("epochs = 4", "steps = 6"))
    arguments = ["verify-resume", "toy.toml", "--epochs", "5", "--stops", "0"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2 epochs of 4 steps" in result.output  # the second is cut short
    assert "stopped after 1 epoch: the same, to the bit" in result.output


DIVIDED = """
trainkit = 1
[run]
epochs = 3
device = "cpu"
threads = 1
[data]
use = "clients.divided:Points"
[model]
use = "clients.divided:Network"
dropout = 0.3
[losses.squares]
use = "clients.divided:Squares"
[metrics.error]
use = "clients.divided:Error"
[pictures]
every_epochs = 0
"""


@pytest.mark.slow  # eight processes start
def test_it_proves_that_the_number_of_processes_changes_no_bit(warm: Warm) -> None:
    said: list[str] = []
    recipe = resolve_text(DIVIDED, Path.cwd(), ["run.shards=2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainkit.engine.verify_processes.subprocess", warm)
        assert verify_processes(recipe, [1, 2], epochs=2, say=said.append)
        two = _run(recipe, 2, epochs=1)
    as_users_do = _run(recipe, 1, epochs=1)
    assert list(differences(*(trained(each, said.append) for each in (two, as_users_do)))) == []
    assert said[0].startswith("2 epochs of 4 steps in 1 process: ")
    assert said[1:] == [
        "2 processes: the same, to the bit",
        "1, then 2, then 1 process, changed after steps 3 and 5: the same, to the bit",
    ]


@pytest.mark.slow  # seven processes start, one after the other
@pytest.mark.usefixtures("_warm_processes")
def test_without_shards_it_says_by_how_much_runs_differ() -> None:
    said: list[str] = []
    assert not verify_processes(resolve_text(DIVIDED, Path.cwd()), [1, 2], epochs=1, say=said.append)
    assert "With [run] shards = 2, they would be the same" in said[0]
    assert all("of the model's norm, train/loss 0." in line for line in said[2:])
    assert len({line.partition("train/loss")[2] for line in said[2:]}) == 2


def test_numbers_of_processes_that_do_not_divide_the_shards_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"run\.shards = 4 cannot be divided among 3 processes; possible are 1, 2, 4"):
        verify_processes(resolve_text(DIVIDED, tmp_path, ["run.shards=4"]), [1, 3], epochs=1, say=print)
    assert not (tmp_path / "runs").exists()
