"""Validation beside the next epoch: the same values, files and checkpoints as in line, also after kills and signals.

What acts on values acts one epoch later, in both.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from clients.toy_run import PARTS, lines, resume, run
from clients.warm import Warm, WarmProcess

from trainkit import Batch, Hook, Live, Memory, Metric, Monitor, Outputs, Point, Scheduler, State, component
from trainkit.checkpoint.file import read
from trainkit.engine import beside
from trainkit.engine.start import RunOutcome
from trainkit.errors import RecipeError
from trainkit.recipe.resolve import resolve_text

pytestmark = pytest.mark.xdist_group("beside")

RECIPE = f"""
trainkit = 1
[run]
name = "beside"
epochs = 9
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
[scheduler]
use = "reduce_on_plateau"
metric = "val/wave"
mode = "min"
patience = 0
[hooks.early]
use = "early_stopping"
patience = 4
min_delta = 1e3
[checkpoint]
every_steps = 3
keep_last = 99
[loggers.values]
use = "jsonl"
{PARTS}"""
BESIDE = "validation.beside=true"


IS_SECOND = "beside_worker" in Path("/proc/self/cmdline").read_text()


class LiveSlow:
    """Takes its time over a batch, and has a row for it. The second process ends no evaluation from ``HOLD`` on."""

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._rows: list[float] = []
        self._computed = 0

    def update(self, outputs: Outputs, batch: Batch) -> None:
        while IS_SECOND and self._computed >= 2 * int(os.environ.get("HOLD", "99")):  # it evaluates two splits
            Path("held").touch()
            time.sleep(0.02)
        self._errors.append(float((outputs["y"] - batch["y"]).abs().mean()))

    def compute(self) -> dict[str, float]:
        self._rows, self._errors = self._errors, []
        self._computed += 1
        Path(f"computed-{self._computed}-{'second' if IS_SECOND else 'training'}").touch()
        error = sum(self._rows)
        return {"error": error, "wave": math.sin(1e4 * error)}

    def rows(self) -> Iterator[dict[str, str | float]]:
        yield {"item": "only", "error": self._rows[0]}


@component
class Slow(Metric):
    """The mean absolute error, and a value of the weights that rises and falls as if by chance."""

    def names(self) -> tuple[str, ...]:
        return "error", "wave"

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
class Marks(Hook):
    """Shows in the folder which steps are made, without hurry."""

    takes_late_values = True

    def build(self, context: Any) -> Live:
        return LiveMarks()


class LiveMarks(Live):
    """See `Marks`."""

    def on_step_end(self, state: State) -> None:
        Path(f"step-{state.step}").touch()
        time.sleep(0.05)


@component
class Halving(Scheduler):
    """Halves the rate at each value, and does not say that it works with late ones."""

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        return Point(lr * 0.5 ** memory.get("values", 0))

    def observe(self, memory: Memory, metrics: Mapping[str, float], monitor: Monitor) -> Memory:
        return {"values": memory.get("values", 0) + 1}


@component
class HalvingLater(Halving):
    """Says it."""

    takes_late_values = True


MARKS = '\n[hooks.marks]\nuse = "engine.test_beside:Marks"\n'


def two_cpus() -> None:
    """Evaluate beside on any machine, and do not train on before the second process has made its first evaluation."""
    takes_over = beside.Beside.takes_over

    def patient(self: beside.Beside, with_pictures: bool) -> bool:
        assert self._trial is None or self._arrived.wait(60)
        return takes_over(self, with_pictures)

    beside.Beside.takes_over = patient  # type: ignore[method-assign]
    beside.usable_cpus = lambda: 2


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(beside, "usable_cpus", lambda: 1)
    monkeypatch.setattr(beside.Beside, "takes_over", beside.Beside.takes_over)  # brings both back, after `two_cpus`


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
    names, its_names = ({path.name for path in (each / "checkpoints").iterdir()} for each in (one, other))
    assert len(names) == 6 + 6  # after epochs, and inside; at steps 12 and 24, both would be the same
    assert {each for each in its_names ^ names if each.startswith("epoch")} == set()
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
def in_line(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    """A run of the same recipe that has no CPU for a second process."""
    folder = tmp_path_factory.mktemp("in_line")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(beside, "usable_cpus", lambda: 1)
        outcome = run(BESIDE, text=RECIPE)
        outcome.run.state.context = outcome.run.state.context._replace(folder=outcome.run.state.folder.absolute())
        return outcome


def rates(values: Sequence[float]) -> list[float]:
    """Return the learning rate of torch's plateau schedule at first and after each value."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    found = [0.02]
    for value in values:
        schedule.step(value)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_the_values_of_an_epoch_set_the_learning_rate_of_the_epoch_after_the_next(in_line: RunOutcome) -> None:
    found = lines(in_line.run.state.folder)
    expected = rates([each["val/wave"] for each in found])
    assert len(set(expected[:5])) > 1
    assert [each["lr/other"] for each in found] == [0.02, *expected[:5]]


def test_early_stopping_ends_the_run_one_epoch_later_and_the_best_may_be_the_last(in_line: RunOutcome) -> None:
    values = [each["val/loss"] for each in lines(in_line.run.state.folder)]
    assert len(values) == 6, "the value of the fifth epoch is the fourth that is no improvement by min_delta"
    assert in_line.run.state.ended == (
        f"stopped: after epoch 5, val/loss had not improved for 4 epochs (best {values[0]:.6g}, then {values[4]:.6g})"
    )
    assert in_line.best is not None
    assert (in_line.best.value, in_line.best.epoch) == min((value, n) for n, value in enumerate(values, start=1))


@pytest.mark.slow
def test_a_run_that_is_resumed_at_any_place_decides_as_if_it_had_not_been(in_line: RunOutcome) -> None:
    folder = in_line.run.state.folder
    last = read(folder / "checkpoints" / "epoch-0006.safetensors")
    for file in sorted((folder / "checkpoints").iterdir()):
        if file.stem == "epoch-0006":
            continue
        outcome = resume(file)
        assert without_times(outcome.run.state.folder) == without_times(folder), file.name
        ended = read(outcome.run.state.folder / "checkpoints" / "epoch-0006.safetensors")
        for key in ("model", "optimizers", "groups", "not_acted_on", "stop_reason", "generators", "evaluated_step"):
            assert _is_same(ended[key], last[key]), f"{file.name}: {key}"


@pytest.mark.parametrize("is_switched_on", [False, True])
def test_if_the_setting_is_changed_no_value_is_lost_and_none_acts_twice(is_switched_on: bool) -> None:
    before, after = (f"validation.beside={str(each).lower()}" for each in (not is_switched_on, is_switched_on))
    first = run(before, "run.epochs=3", "hooks.early.patience=99", text=RECIPE)
    found = lines(resume(first.run.state.folder, after, "run.epochs=6").run.state.folder)
    known = rates([each["val/wave"] for each in found])  # after so many values
    assert len(set(known[:5])) > 1
    acted_on = [0, 1, 2, 3, 3, 4] if is_switched_on else [0, 0, 1, 2, 4, 5]
    assert [each["lr/other"] for each in found] == [known[number] for number in acted_on]


def test_a_value_that_means_something_else_after_a_resume_is_not_acted_on() -> None:
    first = run(BESIDE, "run.epochs=2", text=RECIPE)
    early: Any = first.run.parts["hooks.early"]
    assert early.best is not None
    outcome = resume(first.run.state.folder, "losses.squares.weight=10.0", "run.epochs=3")
    early = outcome.run.parts["hooks.early"]
    assert early.best is None
    assert "val/loss" in outcome.run.not_acted_on[0].metrics


@pytest.mark.slow
def test_values_files_and_checkpoints_are_those_of_an_evaluation_in_line(
    in_line: RunOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []
    hand_over = beside.Beside.hand_over

    def noted(self: beside.Beside) -> None:
        handed.append(self._run.state.epoch)
        hand_over(self)

    two_cpus()
    monkeypatch.setattr(beside.Beside, "hand_over", noted)
    outcome = run(BESIDE, text=RECIPE)
    assert handed == [1, 2, 3, 4, 5]
    assert (outcome.run.state.ended, outcome.best) == (in_line.run.state.ended, in_line.best)
    same_files(in_line.run.state.folder, outcome.run.state.folder)


@pytest.mark.slow
def test_weights_of_a_later_epoch_have_other_values(in_line: RunOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would fail if the second process saw the weights that training goes on to change."""
    exchange = beside.Beside._exchange

    def late(self: beside.Beside, question: Any) -> None:
        time.sleep(0.3 if self.is_pending else 0.0)  # the training has then made steps of the next epoch, and waits
        exchange(self, question)

    two_cpus()
    monkeypatch.setattr(beside.Beside, "_exchange", late)
    monkeypatch.setattr(beside, "_copied", lambda node, like: node)
    folder = run(BESIDE, "run.epochs=4", text=RECIPE).run.state.folder
    right, wrong = without_times(in_line.run.state.folder), without_times(folder)
    assert [one != other for one, other in zip(right[:3], wrong[:3], strict=True)] == [False, True, True]
    assert [each["train/loss"] for each in right[:3]] == [each["train/loss"] for each in wrong[:3]]


COMMAND = """
from engine.test_beside import two_cpus
from trainkit.cli import main
two_cpus()
main()
"""


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started_in_evaluation(warm: Warm) -> tuple[WarmProcess, Path, int]:
    """Start a run, and return while it trains and its fourth epoch is evaluated, with the second process's number."""
    Path("recipe.toml").write_text(RECIPE + MARKS)
    training = warm.start("-c", COMMAND, "run", "recipe.toml", "--set", BESIDE, folder=Path.cwd(), environment=HOLD)
    until = time.monotonic() + 60
    while not (Path("held").exists() and Path("step-17").exists()):
        assert training.poll() is None, training.stdout
        assert time.monotonic() < until, training.stdout
        time.sleep(0.01)
    (folder,) = Path("runs/beside").iterdir()
    assert len(lines(folder)) == 3
    return training, folder, children(training.pid)[0]


HOLD = {"HOLD": "3"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_run_that_is_killed_while_an_evaluation_is_under_way_ends_as_if_it_had_not_been(
    in_line: RunOutcome, name: str, warm: Warm
) -> None:
    training, folder, second = started_in_evaluation(warm)
    training.send_signal(getattr(signal, name))
    if name == "SIGINT":  # which a terminal sends to both
        os.kill(second, signal.SIGINT)
    assert training.wait(60) == (-signal.SIGKILL if name == "SIGKILL" else 75)
    until = time.monotonic() + 10
    while is_alive(second) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(second)
    same_files(in_line.run.state.folder, resume(folder).run.state.folder)


@pytest.mark.slow
def test_if_the_second_process_dies_the_run_says_so_and_loses_nothing(in_line: RunOutcome, warm: Warm) -> None:
    training, folder, second = started_in_evaluation(warm)
    os.kill(second, signal.SIGKILL)
    assert training.wait(60) == 1
    assert "beside the training failed: its process ended with signal 9" in (folder / "log.txt").read_text()
    assert (folder / "checkpoints" / "step-00000016.safetensors").exists()
    same_files(in_line.run.state.folder, resume(folder).run.state.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "why"),
    [("Random", "draws from the global random generators"), ("OfProcess", "val/pid was")],
)
def test_what_differs_between_the_two_is_evaluated_in_line(
    metric: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = RECIPE.replace(":Slow", f":{metric}").replace("val/wave", "val/loss")
    two_cpus()
    with caplog.at_level("INFO", "trainkit"):
        folder = run(BESIDE, "run.epochs=3", text=text).run.state.folder
    assert why in caplog.text
    assert len(lines(folder)) == 3


def test_with_too_few_cpus_the_run_evaluates_in_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "trainkit"):
        run(BESIDE, "run.epochs=2", text=RECIPE)
    assert "two processes of 1 thread (run.threads) need 2 CPUs, and it may use 1" in caplog.text


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("scheduler={ use = 'engine.test_beside:Halving' }", "Halving (scheduler) sets the learning rate by values"),
        ("hooks.look={ use = 'engine.test_beside:Looking' }", "Looking (hooks.look) does not say"),
        ("validation.every_steps=3", "remove validation.every_steps"),
    ],
)
def test_what_does_not_say_that_it_takes_late_values_is_refused(sets: str, said: str) -> None:
    resolve_text(RECIPE, Path.cwd(), [sets])
    with pytest.raises(RecipeError) as caught:
        resolve_text(RECIPE, Path.cwd(), [BESIDE, sets])
    assert said in str(caught.value)


def test_check_says_what_acts_later() -> None:
    later = "scheduler={ use = 'engine.test_beside:HalvingLater' }"
    (note,) = resolve_text(RECIPE, Path.cwd(), [BESIDE, later]).notes
    assert "at the end of the next one: HalvingLater (scheduler), EarlyStopping (hooks.early)" in str(note)
