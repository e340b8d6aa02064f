"""How long a run lasts and what recurs in it: epochs, steps, minutes; and a stop that a hook asks for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import recorder
from clients.toy_run import TOY, lines, resume, run

from trainkit import State
from trainkit.engine.every_run.saving import SaveByTime

IN_STEPS = TOY.replace("epochs = 2", "steps = 10")  # two and a half epochs of four steps


@pytest.fixture(autouse=True)
def _nothing_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def places(folder: Path) -> list[tuple[int, int]]:
    return [(line["finished_epochs"], line["step"]) for line in lines(folder)]


def test_a_run_in_steps_ends_at_its_last_step_and_closes_the_epoch() -> None:
    state = run(text=IN_STEPS).run.state
    assert (state.ended, state.step, state.epoch) == ("finished", 10, 3)
    assert places(state.folder) == [(1, 4), (2, 8), (3, 10)]
    assert "val/loss" in lines(state.folder)[-1]
    assert (state.folder / "checkpoints" / "epoch-0003.safetensors").is_file()


def test_a_schedule_by_steps_runs_over_exactly_the_steps_of_the_run() -> None:
    rates: list[float] = []
    recorder.ACTIONS["step_end"] = lambda state: rates.append(state.groups["other"].lr)
    run('scheduler={ use = "cosine", by = "step", final_factor = 0.0 }', "optimizer.lr=1.0", text=IN_STEPS)
    assert rates == pytest.approx([(1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)], rel=1e-12)


def test_a_longer_run_in_steps_asks_how_a_schedule_goes_on_and_stretches_it() -> None:
    from trainkit import RecipeError

    sets = ('scheduler={ use = "cosine", by = "step", final_factor = 0.0 }', "optimizer.lr=1.0")
    folder = run(*sets, text=IN_STEPS).run.state.folder
    with pytest.raises(RecipeError, match="--on-extend stretch"):
        resume(folder, "run.steps=20")
    rates: list[float] = []
    recorder.ACTIONS["step_end"] = lambda state: rates.append(state.groups["other"].lr)
    ending = resume(folder, "run.steps=20", on_extend="stretch")
    assert ending.run.state.step == 20
    assert rates == pytest.approx([(1 + math.cos(math.pi * t / 20)) / 2 for t in range(10, 20)], rel=1e-12)


@pytest.mark.parametrize("at", [6, 8])  # inside an epoch of four steps, and at its last step
def test_a_stop_asked_for_at_a_step_closes_its_epoch(at: int) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.stop("enough") if state.step == at else None
    recorder.ACTIONS["picture"] = lambda state: state.picture("dot", np.zeros((2, 2, 3), np.uint8))
    state = run("run.epochs=100").run.state
    assert (state.ended, state.step, state.epoch) == ("stopped: enough", at, 2)
    assert places(state.folder) == [(1, 4), (2, at)]
    assert "val/loss" in lines(state.folder)[-1]
    assert (state.folder / "figures" / "dot-0002.png").is_file()
    assert (state.folder / "checkpoints" / "epoch-0002.safetensors").is_file()


def test_a_stop_whose_evaluation_is_interrupted_is_closed_by_the_resume() -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.stop("enough") if state.step == 6 else None
    recorder.ACTIONS["validation_start"] = lambda state: state.interrupt("now") if state.step == 6 else None
    folder = run("run.epochs=100").run.state.folder
    assert places(folder) == [(1, 4)]
    recorder.ACTIONS.clear()
    ending = resume(folder)
    assert (ending.run.state.ended, ending.run.state.step) == ("stopped: enough", 6)
    assert places(folder) == [(1, 4), (2, 6)]


def test_splits_are_evaluated_every_few_steps_and_each_time_leaves_a_line() -> None:
    state = run("run.epochs=2", "validation.every_steps=3").run.state
    found = [(line["step"], "seconds" in line) for line in lines(state.folder)]
    assert found == [(3, False), (4, True), (6, False), (8, True)]
    assert all("val/loss" in line for line in lines(state.folder))
    assert "train/loss" not in lines(state.folder)[0]


def test_an_evaluation_after_an_epochs_last_step_is_not_made_twice() -> None:
    state = run("run.epochs=2", "validation.every_steps=4").run.state
    assert [event for event, _, _ in recorder.SEEN].count("validation_start") == 2
    assert [line["step"] for line in lines(state.folder)] == [4, 8]


def test_an_evaluation_inside_an_epoch_changes_nothing_of_the_training() -> None:
    plain, evaluated = (run("run.epochs=2", f"validation.every_steps={every}").run.state for every in (0, 1))
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, evaluated.model.state_dict()[name])


def test_checkpoints_are_written_every_few_steps() -> None:
    state = run("run.epochs=2", "checkpoint.every_steps=3", "checkpoint.keep_last=9").run.state
    kept = sorted(path.stem for path in (state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0001", "epoch-0002", "step-00000003", "step-00000006"]


def test_a_checkpoint_due_after_an_epochs_last_step_is_written_once_at_the_end_of_the_epoch() -> None:
    sets = ("run.epochs=2", "checkpoint.every_steps=2", "checkpoint.every_epochs=0", "checkpoint.keep_last=9")
    state = run(*sets).run.state
    kept = sorted(path.stem for path in (state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0001", "epoch-0002", "step-00000002", "step-00000006"]


def test_a_checkpoint_is_asked_for_when_the_last_one_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    now = [0.0]
    monkeypatch.setattr("trainkit.engine.every_run.saving.monotonic", lambda: now[0])
    part, asked = SaveByTime(0, every_minutes=2.0), []
    inside = {"step": 1, "steps": None, "steps_in_epoch": 1, "steps_per_epoch": 4}
    state: Any = SimpleNamespace(**inside, save_reason=None, save=asked.append)
    for now[0] in (60.0, 119.0):
        part.on_step_end(state)
    assert asked == []
    now[0] = 120.0
    part.on_step_end(state)
    assert len(asked) == 1
    state.save_reason = "time"
    part.on_checkpoint(state)
    now[0] = 239.0
    part.on_step_end(state)
    assert len(asked) == 1


def test_the_best_inside_an_epoch_is_kept_under_its_step() -> None:
    values = iter([5.0, 1.0, 4.0, 3.0])
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": next(values)})
    sets = ("run.epochs=1", "validation.every_steps=1", "checkpoint.every_steps=1", "checkpoint.keep_last=1")
    ending = run(*sets)
    assert ending.best == (1.0, 0, 2)
    kept = sorted(path.stem for path in (ending.run.state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0001", "step-00000002"]


def test_pictures_inside_an_epoch_are_called_by_their_step() -> None:
    recorder.ACTIONS["picture"] = lambda state: state.picture("dot", np.zeros((2, 2, 3), np.uint8))
    state = run("run.epochs=1", "pictures.every_steps=3").run.state
    assert sorted(path.name for path in (state.folder / "figures").iterdir()) == [
        "dot-0001.png",
        "dot-step-00000003.png",
    ]


def test_values_that_hooks_log_are_in_the_line_whatever_the_event() -> None:
    events = ("epoch_start", "step_end", "validation_start", "validation_step_end", "validation_end", "picture")

    def log(event: str) -> Any:
        return lambda state: state.log(f"val/{event}", 2.0)

    for event in (*events, "epoch_end"):
        recorder.ACTIONS[event] = log(event)
    state = run("run.epochs=2").run.state
    for event in (*events[:-1], "epoch_end"):
        assert lines(state.folder)[-1][f"val/{event}"] == 2.0, event
    assert lines(state.folder)[-1]["val/picture"] == 2.0


def test_a_monitored_value_that_never_comes_is_said_after_the_first_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from trainkit.console import Console
    from trainkit.engine.start import start
    from trainkit.recipe.resolve import resolve_text

    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.pop("val/loss")
    start(resolve_text(TOY, Path.cwd()), Console())
    said = capsys.readouterr().out
    assert said.count('monitor.metric = "val/loss", but no such value was computed; did you mean') == 1


def test_a_plateau_too_long_for_the_run_is_said_once_the_steps_in_an_epoch_are_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plateau = 'scheduler={ use = "reduce_on_plateau", patience = 2 }'
    first = run(plateau, text=IN_STEPS)
    said = [record.getMessage() for record in caplog.records]
    assert sum("patience 2 needs 4 values of val/loss before the last epoch" in each for each in said) == 1
    caplog.clear()
    resume(first.run.state.folder, "run.steps=30")  # long enough
    assert not any("needs 4 values" in record.getMessage() for record in caplog.records)


def test_no_value_is_lost_between_json_and_the_state() -> None:
    recorder.ACTIONS["epoch_end"] = lambda state: state.metrics.update({"val/odd": float("nan")})
    state: State = run().run.state
    text = (state.folder / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[0])["val/odd"] is None


def test_a_resume_tells_of_settings_in_a_table_that_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    first = run("run.epochs=1", "groups.other.lr=1e-3")
    resume(first.newest, "run.epochs=2", 'groups.other.optimizer={ use = "sgd" }', quiet=False)
    said = capsys.readouterr().out
    assert "changed: groups.other.optimizer.use: not set -> sgd (the run goes on differently)" in said
    assert "groups.other.optimizer.momentum" not in said  # as it is by default


def test_a_run_that_is_validated_only_at_its_end_is_warned_of() -> None:
    from trainkit.recipe.resolve import resolve_text

    rare = resolve_text(TOY, Path.cwd(), ("validation.every_epochs=0",)).notes
    assert ["only at the end of the run" in note.message for note in rare] == [True]
    assert not resolve_text(TOY, Path.cwd(), ("validation.every_epochs=0", "validation.every_steps=3")).notes
