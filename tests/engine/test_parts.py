"""Parts of third parties that fail, or give what they should not: the message names the part and what it was doing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from clients.toy_run import TOY, lines, resume, run

from trainkit import DataError, Live, PartError, State
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine.batches import BatchSource, to_device
from trainkit.engine.start import start
from trainkit.engine.stopwatch import Stopwatch
from trainkit.events import EVENTS, listeners
from trainkit.recipe.resolve import resolve_text

CODE = """
from trainkit import Data, Hook, Loss, Metric, Model, Scheduler, component
from clients.toy import Line, LiveLine, Perceptron


@component
class Numbers(Metric):
    kind: str = "tensor"

    def names(self):
        return ("number",)

    def build(self, data):
        return LiveNumbers(self.kind)


class LiveNumbers:
    def __init__(self, kind):
        self.kind = kind

    def update(self, outputs, batch):
        if self.kind == "fails":
            raise KeyError("logits")

    def compute(self):
        import numpy, torch
        return {"tensor": {"number": torch.tensor(0.5)}, "numpy": {"number": numpy.float32(0.5)}, "bare": 0.5,
                "other": {"another": 0.5}, "none": {}, "text": {"number": "0.5"}}[self.kind]


@component
class Fails(Hook):
    where: str = "build"

    def build(self, context):
        if self.where == "build":
            raise RuntimeError("the bug")
        return LiveFails(self.where)


class LiveFails:
    def __init__(self, where):
        self.where = where

    def on_run_end(self, state):
        if self.where == "run_end":
            raise RuntimeError("the bug")

    def state_dict(self):
        if self.where == "state_dict":
            raise RuntimeError("the bug")
        return {}

    def load_state_dict(self, saved):
        pass
"""


@pytest.fixture(autouse=True)
def _a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_parts.py").write_text(CODE)
    yield
    sys.modules.pop("odd_parts", None)


@pytest.mark.parametrize("kind", ["tensor", "numpy"])
def test_numbers_of_torch_and_numpy_are_taken_as_floats(kind: str) -> None:
    state = run(f'metrics.mine={{ use = "odd_parts:Numbers", kind = "{kind}" }}').run.state
    assert lines(state.folder)[0]["val/number"] == 0.5


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bare", "metrics.mine, in compute, must return a dict"),
        ("text", """metrics.mine must return numbers; its "number" is '0.5'"""),
        ("other", "metrics.mine must return the values that its names.. state, number; it returned another"),
        ("none", "metrics.mine must return the values that its names.. state, number; it returned nothing"),
        ("fails", "metrics.mine, in update: KeyError: 'logits'"),
    ],
)
def test_anything_else_names_the_metric(kind: str, message: str) -> None:
    with pytest.raises(PartError, match=message):
        run(f'metrics.mine={{ use = "odd_parts:Numbers", kind = "{kind}" }}')


@pytest.mark.parametrize("where", ["build", "run_end", "state_dict"])
def test_a_hook_that_fails_is_named_with_what_it_was_doing(where: str) -> None:
    event = f"on_{where}" if where == "run_end" else where
    with pytest.raises(PartError, match=f"hooks.mine, in {event}: RuntimeError: the bug"):
        run(f'hooks.mine={{ use = "odd_parts:Fails", where = "{where}" }}')


NOT_IN_EACH_RUN = ("group_stop", "picture", "resume", "late_values")


@pytest.mark.parametrize("event", [event for event in EVENTS if event not in NOT_IN_EACH_RUN])
def test_a_hook_that_fails_at_an_event_is_named_with_the_event(event: str) -> None:
    def fail(state: State) -> None:
        raise ValueError("the bug")

    recorder.ACTIONS[event] = fail
    with pytest.raises(PartError, match=f"hooks.recorder, in on_{event}: ValueError: the bug"):
        run()
    (folder,) = Path("runs/toy").iterdir()
    assert "Traceback" in (folder / "log.txt").read_text()


def test_when_a_run_fails_every_part_is_told_its_end_and_the_first_failure_is_the_one_reported() -> None:
    told: list[str] = []

    def end(state: State) -> None:
        told.append(state.ended)
        raise ValueError("the second")

    def fail(state: State) -> None:
        raise ValueError("the first")

    recorder.ACTIONS |= {"epoch_end": fail, "run_end": end}
    with pytest.raises(PartError, match="in on_epoch_end: ValueError: the first"):
        run('hooks.mine={ use = "odd_parts:Fails", where = "run_end" }')
    assert told == ["failed: PartError"]


ODD = """
from clients.toy import Line, LiveLine, Perceptron, Squares
from trainkit import Hook, Inference, Metric, Optimizer, component


@component
class OddData(Line):
    odd: str

    def build(self, context):
        live = OddLine(context.seed, self.batch_size)
        live.odd = self.odd
        return live


class OddLine(LiveLine):
    def train(self, epoch, start):
        if self.odd == "train fails":
            raise RuntimeError("the bug")
        return None if self.odd == "train gives nothing" else super().train(epoch, start)

    def evaluate(self, split):
        if self.odd == "evaluate fails":
            raise RuntimeError("the bug")
        return None if self.odd == "evaluate gives nothing" else super().evaluate(split)

    def facts(self):
        import torch

        return {"no facts": None, "facts of tensors": {"mean": torch.zeros(1)}}.get(self.odd, {})


@component
class OddModel(Perceptron):
    odd: str

    def build(self, data):
        return (lambda batch: batch) if self.odd == "function" else super().build(data)

    def parameter_groups(self, model):
        import torch

        if self.odd == "no groups":
            return None
        if self.odd == "foreign":
            return {"other": [*model.parameters(), torch.nn.Parameter(torch.zeros(1))]}
        return super().parameter_groups(model)


@component
class OddLoss(Squares):
    odd: str

    def combine(self):
        if self.odd == "combine fails":
            raise RuntimeError("the bug")
        return "mean"

    def build(self, data):
        return None if self.odd == "nothing" else super().build(data)


@component
class OddMetric(Metric):
    def build(self, data):
        return lambda: 0.0


@component
class OddInference(Inference):
    def build(self, data):
        return None


@component
class OddOptimizer(Optimizer):
    odd: str

    def build(self, groups):
        import torch

        return torch.optim.SGD(groups[:1]) if self.odd == "one group" else None


@component
class OddHook(Hook):
    def build(self, context):
        return None
"""


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("data", 'OddData", odd = "train fails', r"data \(odd:OddData\), in train: RuntimeError: the bug"),
        ("data", 'OddData", odd = "train gives nothing', r"data \(odd:OddData\), in train: TypeError: 'NoneType'"),
        ("data", 'OddData", odd = "evaluate fails', r"data \(odd:OddData\), in evaluate: RuntimeError: the bug"),
        (
            "data",
            'OddData", odd = "evaluate gives nothing',
            r"data \(odd:OddData\), in evaluate: TypeError: 'NoneType'",
        ),
        ("data", 'OddData", odd = "no facts', r"data \(odd:OddData\), in facts: TypeError: 'NoneType'"),
        ("data", 'OddData", odd = "facts of tensors', r"data \(odd:OddData\), in facts: TypeError: .*JSON"),
        ("model", 'OddModel", odd = "function', r"model must build a torch.nn.Module; it built <function"),
        ("model", 'OddModel", odd = "no groups', "model, in parameter_groups: AttributeError"),
        ("model", 'OddModel", odd = "foreign', "group other has a parameter that is not one of the model's"),
        ("losses.squares", 'OddLoss", odd = "combine fails', "losses.squares, in build: RuntimeError: the bug"),
        ("losses.squares", 'OddLoss", odd = "nothing', r"losses.squares must build a function .*; it built None"),
        ("metrics.mine", "OddMetric", "metrics.mine must build a part with the methods update and compute"),
        ("inference", "OddInference", r"inference must build a function .*; it built None"),
        ("optimizer", 'OddOptimizer", odd = "nothing', "optimizer, in build: AttributeError: 'NoneType'"),
        ("hooks.mine", "OddHook", r"hooks.mine must build a part with methods on_<event>.*; it built None"),
    ],
)
def test_a_part_that_gives_what_its_kind_does_not_promise_is_named(
    part: str, settings: str, message: str, tmp_path: Path
) -> None:
    import sys

    (tmp_path / "odd.py").write_text(ODD)
    try:
        with pytest.raises(PartError, match=message):
            run(f'{part}={{ use = "odd:{settings}" }}')
    finally:
        sys.modules.pop("odd", None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seen", 1.0, 'hooks.recorder, in on_step_end: ValueError: .*must be "<split>/<name>"'),
        ("lr/other", 1.0, 'hooks.recorder, in on_step_end: ValueError: .*"lr/other" is no name'),
        ("train/loss", 1.0, 'hooks.recorder, in on_step_end: ValueError: "train/loss" is the total loss'),
        ("train/x", torch.zeros(3), r"hooks.recorder, in on_step_end: ValueError: .*not a tensor of shape \(3,\)"),
        ("train/x", "low", "hooks.recorder, in on_step_end: ValueError: could not convert string to float: 'low'"),
    ],
)
def test_a_value_that_cannot_be_logged_names_the_hook(name: str, value: Any, message: str) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.log(name, value)
    with pytest.raises(PartError, match=message):
        run()


def test_a_number_of_numpy_can_be_logged() -> None:
    import numpy as np

    value: Any = np.float32(0.5)
    recorder.ACTIONS["step_end"] = lambda state: state.log("train/x", value)
    assert lines(run("run.epochs=1").run.state.folder)[0]["train/x"] == 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("val/x", "low", r'state.metrics."val/x". must be a number; a part of the run set it to \'low\''),
        ("epoch", 7.0, r'state.metrics."epoch". was set by a part'),
    ],
)
def test_what_is_no_metric_is_not_written_among_the_metrics(name: str, value: Any, message: str) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.metrics.update({name: value})
    with pytest.raises(PartError, match=message):
        run()


def test_a_part_may_change_the_working_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    recorder.ACTIONS["epoch_start"] = lambda state: os.chdir(elsewhere)
    ending = start(resolve_text(TOY, tmp_path), Console(), report=report)
    folder = ending.run.state.folder
    os.chdir(tmp_path)
    resumed = resume(folder.relative_to(tmp_path), "run.epochs=4", quiet=False)
    assert resumed.run.state.folder == folder
    assert [line["finished_epochs"] for line in lines(folder)] == [1, 2, 3, 4]
    assert not list(elsewhere.iterdir())
    said = capsys.readouterr().out
    assert said.count(f"run folder: {folder.relative_to(tmp_path)}\n") == 2
    assert str(tmp_path) not in said + (folder / "log.txt").read_text()


def test_a_part_that_ends_the_program_does_not_end_it_as_if_all_was_well() -> None:
    def leave(state: State) -> None:
        raise SystemExit

    recorder.ACTIONS["step_end"] = leave
    with pytest.raises(PartError, match=r"called sys\.exit"):
        run()


SCHEDULES = """
from trainkit import Point, Scheduler, component


@component
class Odd(Scheduler):
    odd: str

    def at(self, t, horizon, lr, memory):
        if self.odd == "fails":
            raise RuntimeError("the bug")
        return {"bare": lr, "negative": Point(-lr), "nan": Point(float("nan")), "momentum": Point(lr, 2.0)}.get(
            self.odd, Point(lr)
        )

    def observe(self, memory, metrics, monitor):
        if self.odd == "observe fails":
            raise RuntimeError("the bug")
        return None if self.odd == "forgets" else memory


@component
class OfNumpy(Scheduler):
    def at(self, t, horizon, lr, memory):
        import numpy as np

        return Point(np.float32(0.5), None)
"""


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("fails", "in at: RuntimeError: the bug"),
        ("bare", "in at: TypeError"),
        ("negative", "in at, must give a learning rate .* it gave -0.001 and None"),
        ("nan", "in at, must give a learning rate .* it gave nan and None"),
        ("momentum", "in at, must give a learning rate .* it gave 0.001 and 2.0"),
        ("observe fails", "in observe: RuntimeError: the bug"),
        ("forgets", "in observe, must give a mapping; it gave None"),
    ],
)
def test_a_schedule_that_gives_no_learning_rate_is_named(odd: str, message: str, tmp_path: Path) -> None:
    import sys

    (tmp_path / "schedules.py").write_text(SCHEDULES)
    try:
        with pytest.raises(PartError, match=f"scheduler Odd, {message}"):
            run(f'scheduler={{ use = "schedules:Odd", odd = "{odd}" }}')
        assert run('scheduler.use="schedules:OfNumpy"').run.state.learning_rates() == {"other": 0.5}
    finally:
        sys.modules.pop("schedules", None)


def test_an_optimizer_that_leaves_out_a_group_is_named(tmp_path: Path) -> None:
    import sys

    (tmp_path / "odd.py").write_text(ODD)
    groups = 'groups={ first = { parameters = ["0.*"] }, second = { parameters = "rest" } }'
    try:
        with pytest.raises(PartError, match=r"optimizer, in build, must take all groups .*; it has first"):
            run('optimizer={ use = "odd:OddOptimizer", odd = "one group" }', groups)
    finally:
        sys.modules.pop("odd", None)


# ---- data -----------------------------------------------------------------------------------------------------------


class Stream:
    def __init__(self, given: int | None, index: bool = True) -> None:
        self.given, self.index, self.made = given, index, 0

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        number = start
        while self.given is None or number < self.given:
            self.made += 1
            yield {"index": torch.arange(1)} if self.index else {"image": number}
            number += 1


def taken(source: BatchSource, epoch: int = 0) -> list[int]:
    return [len(batches) for batches in source.steps(epoch, 0, Stopwatch())]


@pytest.mark.parametrize(("per_step", "steps"), [(1, [1] * 10), (4, [4, 4, 2])])
@pytest.mark.parametrize("given", [10, 15, None], ids=["as announced", "more", "endless"])
def test_no_more_batches_are_taken_than_announced(
    given: int | None, per_step: int, steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    data = Stream(given)
    source = BatchSource(data, "data (stream)", 10, per_step)
    assert taken(source) == steps
    assert taken(source, epoch=1) == steps
    said = [record.getMessage() for record in caplog.records]
    assert (said == []) == (given == 10)
    assert all("data (stream) yields more than the 10 batches" in line for line in said)
    assert data.made <= 21  # it was looked for more once


def test_no_batch_at_all_is_an_error_that_names_the_data() -> None:
    with pytest.raises(DataError, match=r"data \(stream\) yielded 0 of the 10 batches"):
        taken(BatchSource(Stream(0), "data (stream)", 10, 1))


def test_fewer_batches_than_announced_are_an_error_that_names_the_data() -> None:
    with pytest.raises(
        DataError, match=r"data \(stream\) yielded 7 of the 10 batches that it announced for an epoch, after 3 epochs"
    ):
        taken(BatchSource(Stream(7), "data (stream)", 10, 4), epoch=3)


def test_a_batch_without_an_index_is_an_error_that_names_the_data() -> None:
    with pytest.raises(DataError, match=r'data \(stream\) yielded a batch without "index"; it has image'):
        taken(BatchSource(Stream(10, index=False), "data (stream)", 10, 1))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (None, "that is not a mapping but NoneType"),
        ((torch.ones(2), torch.ones(2)), "that is not a mapping but tuple"),
        (torch.ones(2), "that is not a mapping but Tensor"),
        ({"index": 3}, 'whose "index" holds no items: 3'),
        ({"index": torch.tensor(3)}, r'whose "index" holds no items: tensor\(3\)'),
        ({"index": torch.arange(0)}, 'whose "index" holds no items'),
    ],
    ids=["None", "tuple", "tensor", "number", "scalar", "empty"],
)
def test_what_is_no_batch_is_an_error_that_names_the_data(batch: Any, message: str) -> None:
    class Odd:
        def train(self, epoch: int, start: int) -> Iterator[Any]:
            yield batch

    with pytest.raises(DataError, match=rf"data \(odd\) yielded a batch {message}"):
        taken(BatchSource(Odd(), "data (odd)", 1, 1))


def test_tensors_in_a_nested_batch_move_to_the_device() -> None:
    one = torch.ones(1)
    batch = {"image": one, "targets": [{"boxes": one}], "pair": (one, "text"), "nested": {"x": one}, "case": "a"}
    moved: Any = to_device(batch, torch.device("meta"))
    found = (moved["image"], moved["targets"][0]["boxes"], moved["pair"][0], moved["nested"]["x"])
    assert {tensor.device.type for tensor in found} == {"meta"}
    assert (moved["pair"][1], moved["case"]) == ("text", "a")


def test_the_old_name_of_the_number_of_batches_is_still_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    from trainkit.engine.build import _num_batches

    class Old:
        steps_per_epoch = 5

    assert _num_batches(Old(), "data (old)") == 5  # type: ignore[arg-type]
    assert "batches_per_epoch" in caplog.text


def test_the_number_of_batches_may_be_an_integer_of_numpy() -> None:
    import numpy as np

    from trainkit.engine.build import _num_batches

    class Counted:
        batches_per_epoch = np.int64(5)

    assert type(_num_batches(Counted(), "data (counted)")) is int  # type: ignore[arg-type]


# ---- live parts -----------------------------------------------------------------------------------------------------


def test_a_live_part_listens_to_the_events_that_it_overrides_and_to_no_others() -> None:
    class Part(Live):
        def on_epoch_end(self, state: State) -> None:
            pass

    heard = listeners({"hooks.part": Part()})
    assert [event for event, found in heard.items() if found] == ["epoch_end"]
    assert heard["epoch_end"][0].where == "hooks.part, in on_epoch_end"


def test_facts_are_in_every_checkpoint_and_other_data_on_resume_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clients import toy

    from trainkit import read_checkpoint
    from trainkit.console import Console
    from trainkit.engine.resume import resume

    facts: dict[str, Any] = {"points": 8, "classes": ["a", "b"]}
    answer: Callable[[Any], dict[str, Any]] = lambda self: facts  # noqa: E731
    monkeypatch.setattr(toy.LiveLine, "facts", answer, raising=False)
    outcome = run("run.epochs=1")
    assert outcome.newest is not None
    assert read_checkpoint(outcome.newest)["facts"] == facts
    facts["classes"] = ["b", "a"]
    resume(outcome.newest, Console(), sets=("run.epochs=2",), allow_code=True)
    said = capsys.readouterr().out
    assert "warning: the data has changed: its classes is ['b', 'a'], was ['a', 'b']" in said
