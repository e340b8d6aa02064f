"""The real command, in a process of its own, as a person would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clients.toy_run import PARTS
from clients.warm import Warm

from trainkit.recipe.shipped import shipped

ROOT = Path(__file__).parents[2]
TOY = f"""
trainkit = 1
[run]
epochs = 2
device = "cpu"
{PARTS}[loggers.tensorboard]
use = "tensorboard"
"""


def trainkit(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainkit", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


@pytest.mark.slow
def test_a_run_says_a_line_an_epoch_and_where_everything_is(recipe: Path, tmp_path: Path) -> None:
    done = trainkit("run", recipe, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^epoch \d/2  val/loss ", done.stdout, re.M)) == 2
    (folder,) = (tmp_path / "runs" / "toy").iterdir()
    shown = folder.relative_to(tmp_path)
    assert f"tensorboard --logdir {shown}/tensorboard --samples_per_plugin=images=200" in done.stdout
    assert "learning rates: other 0.001" in done.stdout
    there = {path.name for path in folder.iterdir()}
    assert there >= {
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "progress.png",
        "log.txt",
    }


@pytest.mark.slow
def test_a_training_outlives_whoever_read_along(recipe: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainkit", "run", str(recipe)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        said = run.stderr.read().decode()
        assert run.wait() == 0, said
    assert said == ""
    assert list(tmp_path.glob("runs/toy/*/checkpoints/epoch-0002.safetensors"))
    assert "finished after 2 of 2 epochs" in next(tmp_path.glob("runs/toy/*/log.txt")).read_text()


@pytest.mark.slow
def test_quiet_is_silent(recipe: Path, tmp_path: Path, warm: Warm) -> None:
    assert warm.trainkit("run", str(recipe), "--quiet", folder=tmp_path) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "nowhere.toml"), 2, "nowhere.toml"),
        (("run", "toy.toml", "--set", "optimizer.use=adma"), 2, 'did you mean "adam"'),
        (("run", "toy.toml", "--set", "optimizer.lr=-1"), 2, "positive"),
        (("run", "toy.toml", "--set", "run.epochs=2.5"), 2, "whole number"),
        (("run", "toy.toml", "--set", "groups.probe.lr=1e-3"), 2, "probe"),
        (("run", "toy.toml", "--set", "groups.other.start_epoch=2"), 2, "start_epoch"),
        (("run", "toy.toml", "--set", "data.use=clients.nowhere:Line"), 2, "cannot be imported"),
        (("run", "toy.toml", "--set", "run.device=cuda:9"), 2, "cuda:9"),
        (("resume", "nowhere"), 1, "nowhere"),
        (("resume", "toy.toml"), 1, "is a recipe"),
        (("recipes", "nowhere"), 2, "nowhere"),
        (("fly",), 2, "fly"),
    ],
)
def test_a_mistake_gets_one_message_and_no_traceback(
    recipe: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str, warm: Warm
) -> None:
    done = warm.start(*arguments, folder=tmp_path, apart=True)
    assert done.wait() == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs" / "toy").iterdir())


def test_a_plan_shows_the_stages_without_torch(tmp_path: Path) -> None:
    done = trainkit("plan", ROOT / "recipes" / "ptycho_staged.toml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:4] == ["finished", "object", "probe", "dr"]
    by_epoch = {row[0]: row[1:4] for row in rows[1:] if row[0].isdigit()}
    assert by_epoch["0"][1:] == ["-", "-"]
    assert by_epoch["10"][1] != "-"
    assert by_epoch["10"][2] == "-"
    assert by_epoch["20"][2] != "-"


def test_a_plan_of_schedules_by_step_takes_as_many_steps_as_it_is_told(tmp_path: Path) -> None:
    by_step = ("--set", "scheduler.by=step", "--set", "scheduler.warmup=5000")
    plan = ("plan", ROOT / "recipes" / "ptycho_hash.toml", *by_step)
    few = trainkit(*plan, folder=tmp_path)
    assert (few.returncode, few.stdout) == (2, "")
    assert "group object: a warm-up of 5000 leaves nothing" in few.stderr
    assert "for 100 steps an epoch; --steps-per-epoch changes that" in few.stderr
    many = trainkit(*plan, "--steps-per-epoch", "500", folder=tmp_path)
    rates = {row.split()[0]: row.split()[1] for row in many.stdout.splitlines()}
    assert float(rates["5"]) == pytest.approx(2501 / 5001 * float(rates["10"]), rel=1e-3)
    assert "for 500 steps an epoch" in many.stdout


def test_shipped_recipes_are_listed_and_printed(tmp_path: Path) -> None:
    listed = trainkit("recipes", folder=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped())
    sentences = [line.split(maxsplit=1)[1] for line in listed.splitlines()]
    assert all(each.endswith(".") and "trainkit run" not in each for each in sentences)
    assert "its encoder starts late and slowly." in listed  # from the second line of a comment
    printed = trainkit("recipes", "ptycho_staged", folder=tmp_path).stdout
    assert printed == (ROOT / "recipes" / "ptycho_staged.toml").read_text()
