"""Steps that are recorded and repeated: what differs from step to step is seen, or the step is not repeated."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import recorder
from clients.normed import Normed
from clients.replays import NotRecordableError, Replays, never_alike, recording_with, repeated_to_the_same_bits, results
from clients.toy import Line, LiveLine, Squares
from clients.toy_run import TOY, resume, run
from same import differences
from torch import nn

from trainkit import Model, PartError, State, component
from trainkit.engine.graphs import CudaGraphs
from trainkit.engine.listed_operations import ListedOperations
from trainkit.engine.live_run import LiveRun
from trainkit.recipe.problems import InvalidRecipe


@component
class RecordedNormed(Normed):
    """A network with BatchNorm and dropout, which allows recordings."""

    steps_can_be_recorded = True


@component
class RecordedSquares(Squares):
    """A loss that allows recordings."""

    steps_can_be_recorded = True


@component
class RecordedRecorder(recorder.Recorder):
    """A hook that allows recordings."""

    steps_can_be_recorded = True


@component
class Python(Model):
    """A network in which Python has a say.

    Attributes:
        what: What it does.
    """

    accepts = Line
    steps_can_be_recorded = True

    what: str

    def build(self, data: Any) -> nn.Module:
        return WithPython(self.what)


class WithPython(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.line, self.what, self.calls = nn.Linear(3, 1), what, 0
        if what == "variant":
            self.step_variant = lambda state: state.step % 2

    def on_step_start(self, state: State) -> None:
        self.calls = state.step

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"y": self.line(batch["x"]) * FACTORS[self.what](self)}


FACTORS: dict[str, Callable[[WithPython], Any]] = {
    "counts": lambda module: 1 + 0.1 * module.calls,
    "variant": lambda module: 1 + 0.1 * (module.calls % 2),
    "draws": lambda module: 1 + 0.1 * random.random(),
    "draws with numpy": lambda module: 1 + 0.1 * float(np.random.rand()),
    "looks": lambda module: 1 + 0.1 * float(module.line.weight.detach()[0, 0]),
}

TOLD = (
    TOY.replace("clients.toy:Perceptron", "engine.test_graphed_step:RecordedNormed")
    .replace("clients.toy:Squares", "engine.test_graphed_step:RecordedSquares")
    .replace("clients.recorder:Recorder", "engine.test_graphed_step:RecordedRecorder")
    .replace('device = "cpu"', "cuda_graph = true\nthreads = 1")
)
UNHEARD = TOLD.partition("[hooks.recorder]")[0]
WITH_PYTHON = UNHEARD.replace("RecordedNormed", "Python")


MISTAKES: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda x: x.mul_(x.sum().item()),
    lambda x: x.mul_(x.tolist()[0]),
    lambda x: x.mul_(float(x.numpy().sum())),
    lambda x: x.add_(1) if x.sum() > 0 else x.add_(2),
    lambda x: x[x > 0],
    lambda x: x.nonzero(),
    lambda x: x.add_(torch.tensor([1.0, 2.0])),
)
"""Computations with a tensor of two numbers that would not be the same in each step."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    recorder.forget()
    yield
    recorder.forget()


def trained(*sets: str, text: str = UNHEARD) -> LiveRun:
    return run(*sets, text=text).run


@pytest.mark.parametrize("text", [UNHEARD, TOLD], ids=["one recording", "one for the update"])
@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("optimizer.use=sgd", "optimizer.momentum=0.9", 'scheduler={ use = "clients.toy:Halving", by = "step" }'),
        ('losses.more={ use = "engine.test_graphed_step:RecordedSquares", weight = 0.5 }', "ema={ decay = 0.5 }"),
        ("groups.encoder.start_epoch=1", "run.epochs=3"),
    ],
)
def test_repeated_steps_have_the_bits_of_steps_made_one_by_one(text: str, sets: tuple[str, ...]) -> None:
    graphs = repeated_to_the_same_bits(lambda: trained(*sets, text=text))
    stages = 2 if "groups.encoder.start_epoch=1" in sets else 1
    assert len(graphs.recorded) == stages * (2 if text == TOLD else 1)


@pytest.mark.parametrize("text", [UNHEARD, TOLD], ids=["one recording", "one for the update"])
def test_a_resume_inside_an_epoch_ends_with_the_same_bits(text: str) -> None:
    with recording_with(Replays()):
        whole = trained("checkpoint.every_steps=1", "checkpoint.keep_last=99", text=text)
        files = sorted((whole.state.folder / "checkpoints").glob("step-*.safetensors"))
        assert len(files) == 6
        for file in (files[0], files[1], files[5]):
            (copy := Path(f"from-{file.stem}")).mkdir()
            (copy / file.name).write_bytes(file.read_bytes())
            assert differences(results(resume(copy / file.name).run), results(whole)) == []


def test_hooks_see_the_values_of_each_step_and_may_keep_its_loss() -> None:
    seen: list[tuple[torch.Tensor, float, float]] = []

    def look(state: State) -> None:
        assert state.loss is not None
        assert state.batch is not None
        assert state.outputs is not None
        seen.append((state.loss, float(state.batch["x"].sum()), float(state.outputs["y"].detach().sum())))

    def all_seen() -> list[tuple[float, float, float]]:
        seen.clear()
        recorder.ACTIONS["step_end"] = look
        trained(text=TOLD)
        return [(float(loss.detach()), *others) for loss, *others in seen]

    with recording_with(Replays()):
        repeated = all_seen()
        with never_alike():
            assert repeated == all_seen()
    assert len(set(repeated)) == 8


def test_gradients_that_a_hook_replaces_are_those_that_count() -> None:
    def replace(state: State) -> None:
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter) if state.step % 3 else parameter.grad

    recorder.ACTIONS["backward_end"] = replace
    repeated_to_the_same_bits(lambda: trained("run.epochs=3", text=TOLD))


def test_a_gradient_that_a_hook_removes_is_an_error_and_not_ignored() -> None:
    def remove(state: State) -> None:
        next(state.model.parameters()).grad = None

    recorder.ACTIONS["backward_end"] = remove
    with recording_with(Replays()), pytest.raises(PartError, match="a hook has removed the gradient of a parameter"):
        trained(text=TOLD)


def test_steps_of_many_kinds_are_not_all_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.engine.graphed_step.MOST_RECORDINGS", 1)
    graphs = repeated_to_the_same_bits(lambda: trained("model.what=variant", "run.epochs=9", text=WITH_PYTHON))
    assert len(graphs.recorded) == 1


@pytest.mark.parametrize(
    ("event", "sets"), [("epoch_end", ()), ("validation_end", ()), ("validation_end", ("validation.every_steps=3",))]
)
def test_what_was_recorded_is_given_up_if_a_parameter_has_got_another_place(event: str, sets: tuple[str, ...]) -> None:
    kept: list[torch.Tensor] = []

    def move(state: State) -> None:
        if state.epoch == 1:
            parameter = next(state.model.parameters())
            kept.append(parameter.data)  # so that its place is not given to the next one
            parameter.data = parameter.data.clone()

    recorder.ACTIONS[event] = move
    graphs = repeated_to_the_same_bits(lambda: trained(*sets, "run.epochs=4", text=TOLD))
    assert len(graphs.recorded) > 2
    assert graphs.waited_after >= 2


def test_an_evaluation_does_not_end_what_was_recorded() -> None:
    sets = ("validation.every_steps=3", "pictures.every_steps=2", "ema={ decay = 0.5 }", "run.epochs=4")
    graphs = repeated_to_the_same_bits(lambda: trained(*sets))
    assert len(graphs.recorded) == 1


def test_parameters_are_known_to_have_changed_although_no_operation_was_seen() -> None:
    class Nothing(Replays):
        def record(self, operations: Callable[[], None], changing: Iterable[torch.Tensor] = ()) -> Callable[[], None]:
            super().record(operations, changing)
            return lambda: None

    versions = []
    recorder.ACTIONS["step_end"] = lambda state: versions.append(next(state.model.parameters())._version)
    with recording_with(Nothing()):
        trained("run.epochs=1", text=TOLD)
    assert versions == sorted(set(versions))


# ---- what cannot be repeated ----------------------------------------------------------------------------------------


def test_what_python_makes_of_the_number_of_a_step_is_noticed_by_these_tests() -> None:
    with pytest.raises(AssertionError):
        repeated_to_the_same_bits(lambda: trained("model.what=counts", "run.epochs=3", text=WITH_PYTHON))


def test_a_model_that_says_which_steps_differ_may_use_python() -> None:
    graphs = repeated_to_the_same_bits(lambda: trained("model.what=variant", "run.epochs=9", text=WITH_PYTHON))
    assert len(graphs.recorded) == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("draws", "draw random numbers on the CPU"),
        ("draws with numpy", "draw random numbers on the CPU"),
        ("looks", "model, in forward: NotRecordableError: __float__ reads a tensor"),
    ],
)
def test_a_model_that_cannot_be_recorded_is_one_message(what: str, said: str) -> None:
    with recording_with(Replays()), pytest.raises(PartError, match=said) as raised:
        trained(f"model.what={what}", text=WITH_PYTHON)
    assert "set run.cuda_graph = false" in str(raised.value)


def test_of_several_errors_the_first_one_is_said() -> None:
    class Strict(Replays):
        def record(self, operations: Callable[[], None], changing: Iterable[torch.Tensor] = ()) -> Callable[[], None]:
            try:
                return super().record(operations, changing)
            finally:
                raise RuntimeError("a graph was left that is not whole")

    with recording_with(Strict()), pytest.raises(PartError, match="model, in forward: NotRecordableError"):
        trained("model.what=looks", text=WITH_PYTHON)


def test_steps_whose_batches_hold_what_is_no_tensor_are_repeated_only_if_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    batch_of = LiveLine.batch
    monkeypatch.setattr(LiveLine, "batch", lambda data, *place: batch_of(data, *place) | {"more": given.pop(0)})
    for values, recordings in (("aaaaaaaaaa", 1), ("abcdefghij", 0), ([[None, 1]] * 10, 1), ([np.ones(2)] * 10, 0)):
        given[:] = values
        graphs = Replays()
        with recording_with(graphs):
            trained()
        assert len(graphs.recorded) == recordings


def test_it_is_said_once_if_no_step_is_like_another(caplog: pytest.LogCaptureFixture) -> None:
    with recording_with(Replays()), caplog.at_level(logging.WARNING, logger="trainkit"):
        trained('scheduler={ use = "one_cycle", by = "step" }')  # which changes Adam's momentum
    said = [each for each in caplog.messages if "of 4 steps none could be repeated" in each]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("run.device=cpu",), 'there are CUDA graphs on CUDA only, and run.device = "cpu"'),
        (("run.accumulate=2", "run.precision=fp16"), 'steps with precision = "fp16", accumulate cannot be recorded'),
        (("run.shards=2",), "steps with shards cannot be recorded"),
        (("run.compile=true",), "steps with compile cannot be recorded"),
        (("model.use=clients.normed:Normed",), r"steps with Normed \(model\) cannot be recorded"),
        (("losses.squares.use=clients.toy:Squares",), r"steps with Squares \(losses.squares\) cannot be recorded"),
        (('hooks.h.use="clients.recorder:Recorder"',), r"steps with Recorder \(hooks.h\) cannot be recorded"),
        (
            ("optimizer={ use = 'torch', name = 'RMSprop' }",),
            r"steps with TorchOptimizer \(optimizer\) cannot be recorded",
        ),
    ],
)
def test_what_is_known_beforehand_is_refused(sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        trained(*sets)


def test_without_cuda_a_run_says_that_it_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("the device would not be the CPU")
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        assert trained("run.repeat_steps=false").graphs is None
    assert "run.cuda_graph = true has no effect: the run is on the device cpu" in caplog.text


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cuda_could_not_record_is_refused_in_these_tests(mistake: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(NotRecordableError):
        Replays().record(lambda: mistake(torch.ones(2)))


@pytest.mark.parametrize("recordings", [Replays, ListedOperations])
def test_a_recording_changes_nothing_and_a_repetition_does_what_was_recorded(
    recordings: type[Replays | ListedOperations],
) -> None:
    total, value, count = torch.zeros(2), torch.ones(2), 0

    def add() -> None:
        nonlocal count
        count += 1
        total.add_(torch.rand(2).mul_(0).add_(value * count))

    generator = torch.get_rng_state()
    again = recordings().record(add)
    assert torch.equal(torch.get_rng_state(), generator)
    assert total.tolist() == [0, 0]
    again()
    value.fill_(3)
    again()
    assert (total.tolist(), count) == ([4, 4], 1)
    assert not torch.equal(torch.get_rng_state(), generator)


def test_the_order_in_which_cuda_is_asked_and_that_what_a_graph_reads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = str(name)

        def wait_stream(self, other: Stream) -> None:
            asked.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            asked.append("replay")

    @contextlib.contextmanager
    def inside(*given: Any, **settings: Any) -> Iterator[None]:
        asked.append(("enter", *(type(each).__name__ for each in given), *sorted(settings)))
        yield
        asked.append("leave")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("own"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("usual"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", inside)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append("wait"))
    graphs, total = CudaGraphs(torch.device("cuda")), torch.zeros(2)
    graphs.warm_up(lambda: asked.append("operations"))
    part = torch.ones(2)

    def add() -> None:
        asked.append("operations")
        total.add_(part * 2)

    again = graphs.record(add)
    again()
    graphs.wait()
    assert asked == [
        "own waits for usual", ("enter", "Stream"), "operations", "leave", "usual waits for own",
        ("enter", "Graph", "capture_error_mode", "stream"), "operations", "leave", "replay", "wait",
    ]  # fmt: skip
    kept = again._outside  # type: ignore[attr-defined]
    assert set(kept) == {total.untyped_storage().data_ptr(), part.untyped_storage().data_ptr()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("text", [UNHEARD, TOLD], ids=["one recording", "one for the update"])
def test_on_cuda_repeated_steps_have_the_bits_of_steps_made_one_by_one(text: str) -> None:
    there = ("run.device=cuda", "run.deterministic=true")
    try:
        repeated = trained(*there, text=text)
        assert isinstance(repeated.graphs, CudaGraphs)
        with never_alike():
            assert differences(results(trained(*there, text=text)), results(repeated)) == []
    finally:
        torch.use_deterministic_algorithms(False)
