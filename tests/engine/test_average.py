"""The moving average of the weights, held against its formula in numpy, and what it is used for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import recorder
from clients.toy_run import RECORDER, TOY, lines, resume, run
from same import differences, same, trained

from trainkit import CheckpointError, Context, State
from trainkit.checkpoint import file as checkpoint
from trainkit.checkpoint.content import read_run, trained_weights
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text

EMA = "ema.decay=0.8"
STAGED = (
    TOY.replace("clients.toy:Perceptron", "clients.normed:Normed")
    + """
[ema]
decay = 0.8
[groups.head]
start_epoch = 1
[groups.encoder]
stop_epoch = 3
"""
)
STAGES = ("run.epochs=4", "run.threads=1", "checkpoint.keep_last=1000")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def newest(state: State) -> dict[str, Any]:
    return read_run(state.folder / "checkpoints" / f"epoch-{state.epoch:04d}.safetensors")


def weights_after_each_step() -> list[dict[str, Any]]:
    """Let the recorder write down the model's state after each step from now on."""
    seen: list[dict[str, Any]] = []

    def note(state: State) -> None:
        seen.append({name: value.clone().double().numpy() for name, value in state.model.state_dict().items()})

    recorder.ACTIONS["step_end"] = note
    return seen


def test_it_is_the_formula_of_numpy_also_for_batch_norm_and_for_groups_that_are_frozen() -> None:
    seen = weights_after_each_step()
    state = run(*STAGES, text=STAGED).run.state
    assert len(seen) == 16
    expected = seen[0]
    for n, weights in enumerate(seen[1:], start=1):
        d = min(0.8, (1 + n) / (10 + n))
        expected = {name: d * expected[name] + (1 - d) * value for name, value in weights.items()}
    content = newest(state)
    averaged = content["average"]["model"]
    assert list(averaged) == list(content["model"])
    assert content["average"]["updates"] == 16
    for name, value in averaged.items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == int(content["model"][name])
        else:
            np.testing.assert_allclose(value.numpy(), expected[name], rtol=2e-6, atol=1e-7, err_msg=name)


def test_a_group_that_never_moves_has_its_own_weights_as_average_to_the_bit() -> None:
    state = run(*STAGES, "groups.head.start_epoch=3", "groups.encoder.stop_epoch=4", text=STAGED).run.state
    content, frozen = newest(state), read_run(state.folder / "checkpoints" / "epoch-0003.safetensors")
    names = [name for name in content["model"] if name.startswith("head")]
    assert names
    assert all(same(frozen["average"]["model"][name], frozen["model"][name]) for name in names)
    assert not any(same(content["average"]["model"][name], content["model"][name]) for name in names)


def test_training_does_not_notice_the_average() -> None:
    plain, averaged = (run(*sets).run.state for sets in (("run.epochs=3",), ("run.epochs=3", EMA)))
    assert same(dict(plain.model.state_dict()), dict(averaged.model.state_dict()))
    told = [[(line["train/loss"], line["lr/other"]) for line in lines(each.folder)] for each in (plain, averaged)]
    assert told[0] == told[1]


def loss_of(weights: Any) -> float:
    """The toy's loss on its held-out points, for a new network with these weights."""
    recipe = resolve_text(TOY, Path.cwd()).recipe
    data = recipe.data.build(Context(0, torch.device("cpu"), Path()))
    model = recipe.model.build(data)
    model.load_state_dict(weights)
    (batch,) = data.evaluate("val")
    with torch.no_grad():
        return float((model.eval()(batch)["y"] - batch["y"]).square().mean())


def test_validation_judges_the_average_and_beside_it_the_raw_weights_if_that_is_asked_for() -> None:
    state = run(EMA, "ema.validate_raw=true", "monitor.metric=val_raw/loss").run.state
    content = newest(state)
    last = lines(state.folder)[-1]
    assert last["val/loss"] == pytest.approx(loss_of(content["average"]["model"]), rel=1e-6)
    assert last["val_raw/loss"] == pytest.approx(loss_of(content["model"]), rel=1e-6)
    assert last["val/loss"] != pytest.approx(last["val_raw/loss"], rel=1e-3)
    assert "val_raw/loss" not in lines(run(EMA).run.state.folder)[-1]
    with pytest.raises(InvalidRecipe, match='no value "val_raw/loss" is computed'):
        run(EMA, "monitor.metric=val_raw/loss")


def test_the_best_checkpoint_is_the_one_whose_average_is_best_and_its_average_is_what_is_used() -> None:
    outcome = run(EMA, "run.epochs=6", "checkpoint.keep_last=1", "optimizer.lr=0.3")
    values = [line["val/loss"] for line in lines(outcome.run.state.folder)]
    assert outcome.best is not None
    assert outcome.best.value == min(values)
    assert values.index(min(values)) + 1 == outcome.best.epoch
    content = read_run(outcome.run.state.folder / "checkpoints" / outcome.best.file_name)
    assert loss_of(trained_weights(content)) == pytest.approx(min(values), rel=1e-6)


def test_without_an_average_the_weights_to_use_are_the_models() -> None:
    content = newest(run().run.state)
    assert trained_weights(content) is content["model"]


def test_a_step_that_fp16_skips_is_not_averaged() -> None:
    state = run(EMA, "run.precision=fp16").run.state
    assert newest(state)["average"]["updates"] == state.updates < state.step


def test_an_interrupted_validation_leaves_model_and_average_as_they_were() -> None:
    whole = run(*STAGES, text=STAGED).run.state

    def interrupt(state: State) -> None:
        if state.epoch == 2:
            state.interrupt("the machine is needed")

    recorder.ACTIONS["validation_start"] = interrupt
    stopped = run(*STAGES, text=STAGED)
    recorder.ACTIONS.clear()
    assert stopped.newest is not None
    assert stopped.newest.name.startswith("step-")
    ended = resume(stopped.run.state.folder)
    assert differences(trained(newest(ended.run.state)), trained(newest(whole))) == []
    told = [[{**line, "seconds": 0} for line in lines(each.folder)] for each in (ended.run.state, whole)]
    assert told[0] == told[1]


def test_a_part_that_fails_in_validation_leaves_the_model_its_own_weights() -> None:
    kept: list[Any] = []

    def fail(state: State) -> None:
        raise OSError("a disk is full")

    def end(state: State) -> None:
        kept.append({name: value.clone() for name, value in state.model.state_dict().items()})

    seen = weights_after_each_step()
    recorder.ACTIONS.update(validation_end=fail, run_end=end)
    with pytest.raises(Exception, match="a disk is full"):
        run(EMA)
    assert all(np.array_equal(value.double().numpy(), seen[-1][name]) for name, value in kept[0].items())


def test_an_average_that_is_added_on_resume_begins_with_the_weights_of_the_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = run("run.epochs=2").run.state
    ended = resume(first.folder, "run.epochs=3", EMA, quiet=False).run.state
    assert newest(ended)["average"]["updates"] == 4
    said = capsys.readouterr().out
    assert "ema.decay" in said


def test_an_average_of_another_form_is_refused(tmp_path: Path) -> None:
    content = newest(run(EMA).run.state)
    content["average"]["updates"] = -1
    checkpoint.write(tmp_path / "wrong.safetensors", content)
    with pytest.raises(CheckpointError, match=r"average\.updates: must be at least 0"):
        read_run(tmp_path / "wrong.safetensors")


def test_the_decay_is_a_share() -> None:
    with pytest.raises(InvalidRecipe, match=r"ema\.decay"):
        resolve_text(TOY.replace(RECORDER, ""), Path.cwd(), ["ema.decay=1.0"])
