"""Trials of the stages to come, and prices of earlier runs: they tell the time left, and change nothing of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import normed
from clients.toy import Squares
from clients.toy_run import TOY, resume, run
from same import differences, trained

from trainkit import component
from trainkit.checkpoint import file as checkpoint
from trainkit.engine import stage_trial
from trainkit.engine.earlier_prices import RECORD, of_earlier_runs
from trainkit.engine.stage_trial import StageTrial
from trainkit.recipe.promises import gives


@component
class TriedNormed(normed.Normed):
    """A network with BatchNorm and dropout, which allows trials."""

    steps_can_be_tried = True


@component
class TriedSquares(Squares):
    """A loss that allows trials."""

    steps_can_be_tried = True


TOLD = (
    TOY.replace("clients.toy:Perceptron", "engine.test_stage_trial:TriedNormed")
    .replace("clients.toy:Squares", "engine.test_stage_trial:TriedSquares")
    .replace("epochs = 2", "epochs = 4")
    + '[groups.encoder]\nstart_epoch = 2\n[groups.encoder.then.end]\nstart_epoch = 3\noptimizer = { use = "adam" }\n'
    + "[pictures]\nevery_epochs = 0\n"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_trial, "_SECONDS", 10.0)  # however busy the machine is
    monkeypatch.setattr(stage_trial, "_MOST_ROUNDS", 3)


def tried(outcome: Any) -> list[str]:
    part = outcome.run.parts.get("stage_trial")
    return [stage.key for stage in part.costs] if isinstance(part, StageTrial) else []


def contents(outcome: Any) -> list[dict[str, Any]]:
    folder = outcome.run.state.folder / "checkpoints"
    return [trained(checkpoint.read(path)) for path in sorted(folder.glob("*.safetensors"))]


def test_a_trial_of_every_stage_to_come_changes_no_bit_of_any_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with_trial = run("checkpoint.keep_last=9", text=TOLD)
    assert set(tried(with_trial)) == {"head 0", "encoder head 0", "encoder/end head 0"}
    monkeypatch.setattr(stage_trial, "may_be_tried", lambda run: False)
    without = run("checkpoint.keep_last=9", "run.name=other", text=TOLD)
    assert tried(without) == []
    assert len(contents(without)) == 4
    for one, other in zip(contents(with_trial), contents(without), strict=True):
        assert differences(one, other) == []


def test_a_resumed_run_tries_what_no_start_has_seen_and_ends_with_the_same_bits() -> None:
    whole = run(text=TOLD)
    first = min((whole.run.state.folder / "checkpoints").glob("*.safetensors"))
    folder = Path("elsewhere")
    folder.mkdir()
    shutil.copy(first, folder)
    resumed = resume(folder / first.name, "run.dir=other")
    assert set(tried(resumed)) == {"encoder head 0", "encoder/end head 0"}
    assert differences(contents(whole)[-1], contents(resumed)[-1]) == []


@pytest.mark.parametrize(
    "changed",
    [
        ("model.use=clients.normed:Normed",),
        ("losses.squares.use=clients.toy:Squares",),
        ("losses.squares.use=clients.remembering:Remembering",),
    ],
)
def test_parts_that_do_not_allow_it_are_not_tried(changed: tuple[str, ...]) -> None:
    assert tried(run(*changed, text=TOLD)) == []


def test_a_class_of_another_package_does_not_inherit_that_steps_can_be_tried() -> None:
    from trainkit_ptychography.losses.amplitude import Amplitude

    class Other(Amplitude):
        pass

    assert gives(Amplitude(), "steps_can_be_tried")
    assert not gives(Other(), "steps_can_be_tried")


def test_a_trial_that_fails_is_said_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight = run(text=TOLD)
    calls = []

    def fail(*given: Any) -> None:
        calls.append(given)
        if len(calls) > 2:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(stage_trial, "_wait", fail)
    with caplog.at_level("INFO", logger="trainkit"):
        failed = run("run.name=failed", text=TOLD)
    assert "what later stages cost could not be tried: RuntimeError: out of memory" in caplog.text
    assert differences(contents(straight)[-1], contents(failed)[-1]) == []


def test_what_a_run_holds_is_put_back_whatever_a_step_does() -> None:
    outcome = run(text=TOLD)
    live = outcome.run
    model = live.state.model
    model.extra, model.numbers = 1, {"a": 1}  # type: ignore[assignment]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with stage_trial.put_back(live):
        for parameter in model.parameters():
            parameter.data.fill_(7.0)
        for buffer in model.buffers():
            buffer.fill_(3)
        model.extra, model.new = 2, 3  # type: ignore[assignment]
        model.numbers["a"] = 2  # type: ignore[index]
        torch.rand(3)
        live.state.doubts.append("nonsense")
        live.state.log("train/nonsense", 1.0)
        for optimizer in live.optimizers.members.values():
            optimizer.state[next(model.parameters())]["nonsense"] = torch.ones(1)
            optimizer.param_groups[0]["lr"] = 77.0
    assert differences(before, model.state_dict()) == []
    assert (model.extra, model.numbers, hasattr(model, "new")) == (1, {"a": 1}, False)
    assert torch.equal(random, torch.get_rng_state())
    assert live.state.doubts == []
    assert "train/nonsense" not in live.state.means
    for optimizer in live.optimizers.members.values():
        assert all("nonsense" not in memory for memory in optimizer.state.values())
        assert optimizer.param_groups[0]["lr"] != 77.0


def prices(outcome: Any) -> dict[str, Any]:
    starts = json.loads((outcome.run.state.folder / "environment.json").read_text())["starts"]
    found: dict[str, Any] = starts[-1][RECORD]
    return found


def test_a_later_run_of_the_same_recipe_knows_the_prices_and_one_of_other_data_does_not() -> None:
    first = run(text=TOLD)
    assert set(prices(first)["steps"]) == {"head 0", "encoder head 0", "encoder/end head 0"}
    same = run("run.epochs=6", "run.seed=4", "groups.encoder.start_epoch=1", "optimizer.lr=0.5", text=TOLD)
    assert tried(same) == []  # all stages are known
    known = of_earlier_runs(same.run)
    assert set(known.steps) == set(prices(first)["steps"])
    assert known.ending is not None
    other = run("data.batch_size=2", text=TOLD)
    assert prices(other)["of"] != prices(first)["of"]
    assert len(tried(other)) == 3


def test_prices_that_somebody_damaged_are_not_used() -> None:
    first = run(text=TOLD)
    path = first.run.state.folder / "environment.json"
    record = json.loads(path.read_text())
    saved = record["starts"][-1][RECORD]
    saved |= {"steps": {"head 0": "fast", "encoder head 0": -1, "encoder/end head 0": 2.0}, "ending": None}
    saved["validation"] = ["nonsense"]
    path.write_text(json.dumps(record))
    known = of_earlier_runs(first.run)
    assert (known.steps, known.validation, known.ending) == ({"encoder/end head 0": 2.0}, {}, None)
    saved["of"] = ["no digest"]
    path.write_text(json.dumps(record))
    assert of_earlier_runs(first.run).steps == {}
