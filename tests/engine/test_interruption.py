"""A run that is interrupted in any event, and resumed, ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder, toy
from clients.toy_run import PARTS, lines, resume, run
from same import differences
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainkit import Context, Hook, Metric, State, component
from trainkit.checkpoint.file import read
from trainkit.events import EVENTS

TEXT = f"""
trainkit = 1
[run]
name = "toy"
epochs = 3
device = "cpu"
{PARTS}
[validation]
every_steps = 3
[pictures]
every_epochs = 1
[checkpoint]
every_epochs = 0
best = 0
[metrics.count]
use = "engine.test_interruption:Count"
[hooks.averaged]
use = "engine.test_interruption:Averaged"
[hooks.recorder]
use = "clients.recorder:Recorder"
"""
NOT_IN_EACH_EPOCH = ("resume", "run_start", "run_end", "group_start", "group_stop", "late_values")


@component
class Averaged(Hook):
    """Evaluates a running average of the weights, and puts the trained weights back afterwards."""

    phase = "mutate"

    def build(self, context: Context) -> object:
        return LiveAveraged()


class LiveAveraged:
    def __init__(self) -> None:
        self.average: dict[str, torch.Tensor] = {}
        self.trained: dict[str, torch.Tensor] = {}

    def on_step_end(self, state: State) -> None:
        for name, value in state.model.state_dict().items():
            self.average[name] = 0.5 * (self.average.get(name, 0.0) + value.clone())

    def on_validation_start(self, state: State) -> None:
        self.trained = {name: value.clone() for name, value in state.model.state_dict().items()}
        state.model.load_state_dict(self.average)

    def on_validation_end(self, state: State) -> None:
        state.model.load_state_dict(self.trained)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.average = saved["average"]


@component
class ThreeSplits(toy.Line):
    """Points that are evaluated in two splits."""

    def splits(self) -> tuple[str, ...]:
        return "train", "val", "test"


@component
class Count(Metric):
    """Counts batches over the whole run, so an evaluation that is made twice would show."""

    def names(self) -> tuple[str, ...]:
        return ("count",)

    def build(self, data: Any) -> object:
        return LiveCount()


class LiveCount:
    count = 0

    def update(self, outputs: Any, batch: Any) -> None:
        self.count += 1

    def compute(self) -> dict[str, float]:
        return {"count": self.count}

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.count = saved["count"]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupt_at(event: str, step: int) -> None:
    def interrupt(state: State) -> None:
        if state.step >= step:
            recorder.ACTIONS.pop(event, None)
            state.interrupt("the test says so")

    recorder.ACTIONS[event] = interrupt


def end_of(state: State) -> tuple[Any, Any]:
    """Return the last checkpoint of a run and the epochs' lines of metrics.jsonl."""
    logged = [{**line, "seconds": 0} for line in lines(state.folder) if "seconds" in line]
    return read(state.folder / "checkpoints" / "epoch-0003.safetensors"), logged


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The end of a run that was never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        return end_of(run(text=TEXT).run.state)


@pytest.mark.measured_every(7)
@pytest.mark.parametrize(
    ("event", "step"),
    [
        *((event, 5) for event in EVENTS if event not in NOT_IN_EACH_EPOCH),
        *((event, 0) for event in ("run_start", "group_start", "epoch_start")),
        ("checkpoint", 8),
    ],
)
def test_an_interruption_in_any_event_loses_nothing_and_changes_nothing(
    event: str, step: int, whole: tuple[Any, Any]
) -> None:
    interrupt_at(event, step)
    stopped = run(text=TEXT)
    assert stopped.run.state.interrupted
    assert stopped.newest is not None
    assert read(stopped.newest)["step"] == stopped.run.state.step, "everything that was trained is saved"
    content, logged = end_of(resume(stopped.run.state.folder).run.state)
    different = [name for name in differences(content, whole[0]) if not name.startswith(("/recipe", "/run/"))]
    assert different == []
    assert logged == whole[1]


def test_a_stop_in_an_evaluation_saves_the_trained_weights_and_leaves_them_in_the_model() -> None:
    trained: dict[str, torch.Tensor] = {}

    def note(state: State) -> None:
        trained.update({name: value.clone() for name, value in state.model.state_dict().items()})

    recorder.ACTIONS["step_end"] = note
    interrupt_at("validation_step_end", 3)
    stopped = run(text=TEXT)
    assert stopped.newest is not None
    for model in (read(stopped.newest)["model"], stopped.run.state.model.state_dict()):
        assert all(torch.equal(value, trained[name]) for name, value in model.items())


def test_what_an_interrupted_evaluation_had_logged_of_its_first_split_is_logged_once() -> None:
    text = (
        TEXT.replace("clients.toy:Line", "engine.test_interruption:ThreeSplits") + '[loggers.tb]\nuse = "tensorboard"\n'
    )
    interrupt_at("validation_step_end", 3)  # "val" is evaluated to its end, "test" is not
    stopped = run("run.epochs=1", text=text)
    assert [line["step"] for line in lines(stopped.run.state.folder)] == [3]
    resumed = resume(stopped.run.state.folder)
    for split in ("val", "test"):
        events = EventAccumulator(str(resumed.run.state.folder / "tensorboard" / split)).Reload()
        assert [point.step for point in events.Scalars("step/loss/total")] == [3]
