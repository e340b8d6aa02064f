"""Validation beside the next epoch: the same values, files and checkpoints as in line, also after kills and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from clients.toy_run import PARTS, lines, resume, run

from trainkit import Batch, Hook, Live, Metric, Outputs, State, component
from trainkit.checkpoint.file import read
from trainkit.cpus import usable_cpus
from trainkit.engine import beside
from trainkit.errors import RecipeError
from trainkit.recipe.resolve import resolve_text

pytestmark = pytest.mark.xdist_group("beside")

RECIPE = f"""
trainkit = 1
[run]
name = "beside"
epochs = 6
device = "cpu"
threads = 1
[optimizer]
use = "adam"
lr = 0.02
[ema]
decay = 0.9
validate_raw = true
[metrics.slow]
use = "engine.test_beside:Slow"
[checkpoint]
every_epochs = 2
keep_last = 99
[loggers.values]
use = "jsonl"
{PARTS}"""
BESIDE = "validation.beside=true"


class LiveSlow:
    """Takes its time over a batch, and has a row for it."""

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._rows: list[float] = []
        self._computed = 0

    def update(self, outputs: Outputs, batch: Batch) -> None:
        time.sleep(float(os.environ.get("SLOW", "0")))
        self._errors.append(float((outputs["y"] - batch["y"]).abs().mean()))

    def compute(self) -> dict[str, float]:
        self._rows, self._errors = self._errors, []
        self._computed += 1
        is_second = "beside_worker" in Path("/proc/self/cmdline").read_text()
        Path(f"computed-{self._computed}-{'second' if is_second else 'training'}").touch()
        return {"error": sum(self._rows)}

    def rows(self) -> Iterator[dict[str, str | float]]:
        yield {"item": "only", "error": self._rows[0]}


@component
class Slow(Metric):
    """The mean absolute error."""

    def names(self) -> tuple[str, ...]:
        return ("error",)

    def build(self, data: Any) -> LiveSlow:
        return LiveSlow()


@component
class Random(Metric):
    """Draws a random number."""

    def build(self, data: Any) -> Any:
        class Live(LiveSlow):
            def compute(self) -> dict[str, float]:
                super().compute()
                return {"drawn": float(torch.rand(()))}

        return Live()


@component
class OfProcess(Metric):
    """Differs between processes."""

    def build(self, data: Any) -> Any:
        class Live(LiveSlow):
            def compute(self) -> dict[str, float]:
                super().compute()
                return {"pid": float(os.getpid())}

        return Live()


@component
class Looking(Hook):
    """Does not say that it works with late values."""

    def build(self, context: Any) -> Live:
        return Live()


@component
class Waits(Hook):
    """Waits at the end of an epoch until the values of the one before, or the trial, have come."""

    takes_late_values = True

    def build(self, context: Any) -> Live:
        return LiveWaits()


class LiveWaits(Live):
    """Gives the second process time."""

    def on_step_end(self, state: State) -> None:
        time.sleep(float(os.environ.get("STEP", "0")))

    def on_epoch_end(self, state: State) -> None:
        if state.epoch == 0 and "beside = true" in (state.folder / "recipe.toml").read_text():
            until = time.monotonic() + 60
            while not [*Path().glob("computed-2-[!t]*")] and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)


WAITS = '\n[hooks.waits]\nuse = "engine.test_beside:Waits"\n'


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(beside, "usable_cpus", lambda: 2)


def without_times(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "seconds" and not key.startswith("time/")}
        for line in found
    ]


def same_files(one: Path, other: Path) -> None:
    """Check that two run folders hold the same values and checkpoints."""
    assert without_times(one) == without_times(other)
    assert without_times(one, "values.jsonl") == without_times(other, "values.jsonl")
    tables = sorted(path.name for path in one.glob("cases*.csv"))
    assert len(tables) == 4
    for name in tables:
        assert (one / name).read_text() == (other / name).read_text()
    names = sorted(path.name for path in (one / "checkpoints").glob("epoch-*"))
    assert names == sorted(path.name for path in (other / "checkpoints").glob("epoch-*"))
    for name in names:
        mine, its = read(one / "checkpoints" / name), read(other / "checkpoints" / name)
        for key in mine:
            if key not in ("run", "recipe", "components"):
                assert _is_same(mine[key], its[key]), f"{name}: {key}"


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(each, other[key]) for key, each in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


@pytest.fixture(scope="module")
def in_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates in line."""
    folder = tmp_path_factory.mktemp("in_line")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run(text=RECIPE + WAITS).run.state.folder.absolute()


@pytest.mark.slow
def test_values_files_and_checkpoints_are_those_of_an_evaluation_in_line(
    in_line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []
    hand_over = beside.Beside.hand_over

    def noted(self: beside.Beside) -> None:
        handed.append(self._run.state.epoch)
        hand_over(self)

    monkeypatch.setattr(beside.Beside, "hand_over", noted)
    monkeypatch.setenv("SLOW", "0.05")
    folder = run(BESIDE, text=RECIPE + WAITS).run.state.folder
    assert handed == [1, 2, 3, 4]
    same_files(in_line, folder)


@pytest.mark.slow
def test_weights_of_a_later_epoch_have_other_values(in_line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would fail if the second process saw the weights that training goes on to change."""
    exchange = beside.Beside._exchange

    def late(self: beside.Beside, question: Any) -> None:
        time.sleep(0.3 if self.is_pending else 0.0)  # the training has then made the next epoch's steps, and waits
        exchange(self, question)

    monkeypatch.setattr(beside.Beside, "_exchange", late)
    monkeypatch.setattr(beside, "_copied", lambda node, like: node)
    folder = run(BESIDE, text=RECIPE + WAITS).run.state.folder
    right, wrong = without_times(in_line), without_times(folder)
    assert [each["train/loss"] for each in right] == [each["train/loss"] for each in wrong]
    differing = [one != other for one, other in zip(right, wrong, strict=True)]
    assert differing == [False, True, True, True, True, False]


needs_two_cpus = pytest.mark.skipif(usable_cpus() < 2, reason="commands evaluate beside on two CPUs only")

COMMAND = [sys.executable, "-m", "trainkit", "run", "recipe.toml"]


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started_in_evaluation(number: int) -> tuple[subprocess.Popen[bytes], Path, int]:
    """Start a run, and return when it trains while an evaluation is under way, with the second process's number."""
    Path("recipe.toml").write_text(RECIPE + WAITS)
    environment = os.environ | {"SLOW": "1.5", "STEP": "0.2", "PYTHONPATH": os.pathsep.join(sys.path)}
    training = subprocess.Popen([*COMMAND, "--set", BESIDE], env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = [*Path("runs/beside").glob("*/metrics.jsonl")]
        if found and len(found[0].read_text().splitlines()) >= number:
            time.sleep(0.9)
            return training, found[0].parent, children(training.pid)[0]
        time.sleep(0.02)
    raise AssertionError("the run did not get there")


@pytest.mark.slow
@needs_two_cpus
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_run_that_is_killed_while_an_evaluation_is_under_way_ends_as_if_it_had_not_been(
    in_line: Path, name: str
) -> None:
    training, folder, second = started_in_evaluation(3)
    training.send_signal(getattr(signal, name))
    code = training.wait(60)
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 75)
    until = time.monotonic() + 10
    while is_alive(second) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(second)
    assert "SLOW" not in os.environ
    same_files(in_line, resume(folder).run.state.folder)


@pytest.mark.slow
@needs_two_cpus
def test_if_the_second_process_dies_the_run_says_so_and_loses_nothing(in_line: Path) -> None:
    training, folder, second = started_in_evaluation(3)
    os.kill(second, signal.SIGKILL)
    assert training.wait(60) == 1
    assert "beside the training failed: its process ended with signal 9" in (folder / "log.txt").read_text()
    assert [*(folder / "checkpoints").glob("step-*")]
    same_files(in_line, resume(folder).run.state.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "why"),
    [("Random", "draws from the global random generators"), ("OfProcess", "val/pid was")],
)
def test_what_differs_between_the_two_is_evaluated_in_line(
    metric: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = RECIPE.replace(":Slow", f":{metric}") + WAITS
    with caplog.at_level("INFO", "trainkit"):
        folder = run(BESIDE, "run.epochs=3", text=text).run.state.folder
    assert why in caplog.text
    assert len(lines(folder)) == 3


def test_with_too_few_cpus_the_run_evaluates_in_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beside, "usable_cpus", lambda: 1)
    with caplog.at_level("INFO", "trainkit"):
        run(BESIDE, "run.epochs=2", text=RECIPE)
    assert "two processes of 1 thread (run.threads) need 2 CPUs, and it may use 1" in caplog.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[scheduler]\nuse = "reduce_on_plateau"', "ReduceOnPlateau (scheduler) sets the next epoch's learning rate"),
        ('[hooks.early]\nuse = "early_stopping"', "EarlyStopping (hooks.early) does not say"),
        ('[hooks.look]\nuse = "engine.test_beside:Looking"', "Looking (hooks.look) does not say"),
        ("[validation]\nevery_steps = 3", "remove validation.every_steps"),
    ],
)
def test_what_reacts_to_values_is_refused(more: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve_text(f"{RECIPE}\n{more}\n", Path.cwd(), [BESIDE])
    assert said in str(caught.value)
