"""Runs of several processes: the same course as one process, the same bits with shards, one end for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import toy_run
from clients.together import Together

from trainkit import RecipeError
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine.verify import differences

pytestmark = pytest.mark.slow

RECIPE = """
trainkit = 1
[run]
name = "{name}"
epochs = 4
device = "cpu"
accumulate = 2
threads = 1
[data]
use = "clients.divided:Points"
[model]
use = "clients.divided:Network"
[losses.squares]
use = "clients.divided:Squares"
[losses.overlap]
use = "clients.divided:Overlap"
weight = 0.5
[losses.small]
use = "clients.divided:Small"
weight = 1e-3
[metrics.error]
use = "clients.divided:Error"
[optimizer]
use = "{optimizer}"
lr = {lr}
[groups.body]
stop_epoch = 3
[groups.head]
start_epoch = 1
[monitor]
metric = "val/loss"
[checkpoint]
keep_last = 99
[pictures]
every_epochs = 0
"""
SGD, ADAM = {"optimizer": "sgd", "lr": 0.5}, {"optimizer": "adam", "lr": 0.01}
SHARDS = '[run]\nshards = 4\n[model]\ndropout = 0.3\nuse = "clients.divided:Network"\n[ema]\ndecay = 0.9\n'
WORLDS = (1, 2, 3, 4)


def written(folder: Path, name: str, changes: Sequence[str] = (), kind: Mapping[str, Any] = SGD) -> str:
    """Write a recipe below a folder; changes are further tables, which come over those of the recipe."""
    (folder / f"{name}-base.toml").write_text(RECIPE.format(name=name, **kind))
    (folder / f"{name}.toml").write_text(f'extends = ["{name}-base.toml"]\n' + "\n".join(changes))
    return f"{name}.toml"


def newest(folder: Path, name: str) -> dict[str, Any]:
    (run,) = (folder / "runs" / name).iterdir()
    content = CheckpointFolder(run / "checkpoints").newest_good(lambda _: None)[1]
    return {key: each for key, each in content.items() if key not in ("run", "recipe")}


def logged(folder: Path, name: str) -> list[dict[str, Any]]:
    (run,) = (folder / "runs" / name).iterdir()
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, together: Together) -> Mapping[int, Path]:
    """The folder of each number of processes, in which the same recipes were run."""
    folders = {world: tmp_path_factory.mktemp(f"world{world}") for world in WORLDS}
    for world, folder in folders.items():
        recipes = [
            written(folder, "plain"),
            written(folder, "levers", ["[run]\nactivation_checkpointing = true\n[ema]\ndecay = 0.9"]),
            written(folder, "norm", ['[model]\nuse = "clients.divided:Network"\nnorm = true']),
        ]
        if world != 3:
            recipes.append(written(folder, "shards", [SHARDS], ADAM))
            for precision in ("fp16", "bf16"):
                levers = f'[run]\nprecision = "{precision}"\nactivation_checkpointing = true\n'
                recipes.append(written(folder, precision, [SHARDS.replace("[run]\n", levers)], ADAM))
            other = SHARDS + '[hooks.trouble]\nuse = "clients.divided:Trouble"\nwhat = "interrupt"\nrank = 0'
            recipes.append(written(folder, "cut", [other], ADAM))
        code = 75 if world != 3 else 0
        together(world, folder, "run", *recipes, "-q", code=code)
    return folders


@pytest.mark.parametrize("recipe", ["plain", "levers"])
@pytest.mark.parametrize("world", WORLDS[1:])
def test_several_processes_follow_the_course_of_one(finished: Mapping[int, Path], world: int, recipe: str) -> None:
    one, several = (newest(finished[each], recipe) for each in (1, world))
    for name, value in one["model"].items():
        torch.testing.assert_close(several["model"][name], value, rtol=1e-4, atol=1e-6)
    for mine, its in zip(logged(finished[1], recipe), logged(finished[world], recipe), strict=True):
        assert its["val/points"] == mine["val/points"] == 41
        for name in ("train/loss", "train/squares", "train/overlap", "val/loss", "val/wrong"):
            np.testing.assert_allclose(its[name], mine[name], rtol=1e-5)


@pytest.mark.parametrize("name", ["shards", "fp16", "bf16"])
@pytest.mark.parametrize("world", [2, 4])
def test_with_shards_the_number_of_processes_changes_no_bit(
    finished: Mapping[int, Path], world: int, name: str
) -> None:
    assert list(differences(newest(finished[1], name), newest(finished[world], name))) == []
    mine, its = (
        [{key: each for key, each in line.items() if key != "seconds"} for line in logged(finished[of], name)]
        for of in (1, world)
    )
    assert mine == its


def test_the_number_of_processes_can_change_in_mid_run_without_a_bit(
    finished: Mapping[int, Path], together: Together
) -> None:
    folder = finished[4]
    together(2, folder, "resume", "cut", "--allow-code", "-q", "--set", "drop=['hooks.trouble']")
    assert list(differences(newest(finished[1], "shards")["model"], newest(folder, "cut")["model"])) == []


@pytest.mark.parametrize("world", WORLDS[1:])
def test_running_statistics_are_the_mean_of_those_of_all_processes(finished: Mapping[int, Path], world: int) -> None:
    one, several = (newest(finished[each], "norm")["model"] for each in (1, world))
    assert several["body.1.num_batches_tracked"] == one["body.1.num_batches_tracked"]
    # The mean of a batch is that of its parts, where these are equally large; here they nearly are.
    torch.testing.assert_close(several["body.1.running_mean"], one["body.1.running_mean"], rtol=0.3, atol=0.1)


def trouble(folder: Path, name: str, hook: str, *more: str) -> str:
    """Write the recipe of a run in which process 1 does something after a step."""
    return written(folder, name, [f'[hooks.trouble]\nuse = "clients.divided:Trouble"\n{hook}', *more])


def test_what_one_process_asks_for_all_do_after_the_same_step(tmp_path: Path, together: Together) -> None:
    recipes = [
        trouble(tmp_path, "group", 'what = "stop a group"\nstep = 3'),
        trouble(tmp_path, "stop", 'what = "stop"'),
        trouble(tmp_path, "interrupt", 'what = "interrupt"'),
    ]
    said = together(2, tmp_path, "run", *recipes, code=75)
    assert newest(tmp_path, "group")["groups"]["body"]["stopped_at"] == 2
    assert said.count("stopped: by process 1 after") == 2
    assert newest(tmp_path, "stop")["step"] == newest(tmp_path, "interrupt")["step"] == 5
    # Each process has logged its own rank: the mean is over both, and the means of both are saved inside an epoch.
    assert logged(tmp_path, "stop")[-1]["train/rank"] == 0.5
    # Each of the three runs says once that a value of the hook is of one process's share.
    assert said.count("own/rank: this value is of the first process's share of the data alone") == 3
    of_each = newest(tmp_path, "interrupt")["running_of_each"]["train/rank"]
    assert [each["values"] for each in of_each] == [[0.0], [1.0]]


def test_a_signal_that_comes_while_a_process_is_built_stops_all_with_a_checkpoint(
    tmp_path: Path, together: Together
) -> None:
    said = together(2, tmp_path, "run", trouble(tmp_path, "early", 'what = "signal"'), code=75)
    assert "stopped: signal SIGUSR1 after 0 of 4 epochs, 1 steps" in said
    assert newest(tmp_path, "early")["step"] == 1


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("fail", "hooks.trouble, in on_step_end: ValueError: of process 1"),
        ("missing", "hooks.trouble, in build: FileNotFoundError: not on this machine"),
        ("kill", "another process ended without a word"),
        ("hang", "did not answer within 5s"),
        ("diverge", "has another model than process"),
    ],
)
def test_one_process_that_fails_ends_all_with_one_message(
    tmp_path: Path, what: str, told: str, together: Together
) -> None:
    patience = "5s" if what == "hang" else "15s"  # which is waited for
    recipe = trouble(tmp_path, "trouble", f'what = "{what}"', f'[run]\npatience = "{patience}"')
    further = [written(tmp_path, "further")] if what == "fail" else ["-q"]
    said = together(2, tmp_path, "run", recipe, *further, code=1, seconds=60)
    assert said.count(told) == (2 if what == "fail" else 1), said  # the table of a queue has it too
    assert ("the runs after this one are not started" in said) == (what == "fail")
    assert "last good checkpoint" in said or what in ("diverge", "missing")
    assert "Traceback" not in said


def test_what_cannot_be_divided_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainkit.console import Console
    from trainkit.engine.start import start
    from trainkit.recipe.resolve import resolve

    monkeypatch.chdir(tmp_path)
    lonely = written(tmp_path, "lonely", ['[metrics.error]\nuse = "clients.divided:LonelyError"', "[run]\nshards = 2"])
    with pytest.raises(RecipeError, match=r"metrics.error has no methods share and merge"):
        start(resolve(tmp_path / lonely), Console(quiet=True))
    with pytest.raises(RecipeError, match=r"Line does not divide batches among processes or shards"):
        toy_run.run("run.shards=2")
