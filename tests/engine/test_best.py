"""The best checkpoint is on the disk, whatever the values are and wherever the run is killed."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import recorder
from clients.toy_run import TOY, lines, resume, run
from hypothesis import given
from hypothesis import strategies as st

from trainkit import Batch, Metric, Monitor, Outputs, State, component
from trainkit.checkpoint.folder import Best, BestValues
from trainkit.console import Console
from trainkit.engine.resume import resume as resume_from
from trainkit.engine.start import ExitCode

EARLY = TOY.replace("[hooks.recorder]", '[hooks.early]\nuse = "early_stopping"\npatience = 2\n[hooks.recorder]')


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Items:
    """A metric whose table has one item."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in nothing."""

    def compute(self) -> dict[str, float]:
        return {"one": 1.0}

    def rows(self) -> Iterator[dict[str, str | float]]:
        yield {"item": "only", "one": 1.0}


@component
class OneItem(Metric):
    """Has a table of one item."""

    def names(self) -> tuple[str, ...]:
        return ("one",)

    def build(self, data: Any) -> Items:
        return Items()


class Killed(BaseException):
    """Stands for a kill: nothing of the run is executed after it, as far as files are concerned."""


def show(values: list[float], kill_at: tuple[str, int] | None) -> None:
    """Make the monitored value of the n-th evaluation ``values[n]``, and end the run at an event of an epoch."""

    def value(state: State) -> None:
        state.metrics["val/loss"] = values[(state.step - 1) // EVERY]

    recorder.ACTIONS.clear()
    recorder.ACTIONS["validation_end"] = value
    if kill_at is not None:
        event, epoch = kill_at

        def kill(state: State) -> None:
            if state.epoch == epoch:
                raise Killed

        recorder.ACTIONS[event] = kill if event != "validation_end" else lambda state: (value(state), kill(state))[0]


EVERY = 2  # steps from one evaluation to the next; an epoch has 4


@pytest.mark.measured_every(6)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_values_and_wherever_it_is_killed_the_best_finite_one_is_on_the_disk(seed: int) -> None:
    draw = random.Random(seed)
    epochs = 5
    odd = [math.nan, math.inf, -math.inf]
    values = [draw.choice(odd) if draw.random() < 0.3 else float(draw.randrange(5)) for _ in range(2 * epochs)]
    mode = draw.choice(["min", "max"])
    sets = (
        f"run.epochs={epochs}",
        f"checkpoint.every_epochs={draw.choice([0, 2, 3])}",
        "checkpoint.keep_last=1",
        f"validation.every_steps={EVERY}",
        f"monitor.mode={mode}",
    )
    kills = [(draw.choice(["epoch_start", "validation_end", "epoch_end", "checkpoint"]), e) for e in range(1, epochs)]
    show(values, kills[0])
    with pytest.raises(Killed):
        run(*sets, text=f'{TOY}\n[metrics.items]\nuse = "{__name__}:OneItem"\n')
    (folder,) = Path("runs/toy").iterdir()
    for kill in [*kills[1:], None]:
        show(values, kill)
        if not list((folder / "checkpoints").iterdir()):
            return  # it was killed before anything was saved
        try:
            outcome = resume(folder)
        except Killed:
            continue
    finite = [value for value in values if math.isfinite(value)]
    best = (min if mode == "min" else max)(finite) if finite else None
    assert (outcome.best.value if outcome.best else None) == best
    if outcome.best:
        assert (folder / "checkpoints" / outcome.best.file_name).is_file()
        step = outcome.best.step or 4 * outcome.best.epoch
        assert values[(step - 1) // EVERY] == best
        (row,) = csv.DictReader((folder / "cases_best.csv").read_text().splitlines())
        assert row == {"item": "only", "one": "1", "epochs": str(outcome.best.epoch), "steps": str(step)}
    (last,) = csv.DictReader((folder / "cases.csv").read_text().splitlines())
    assert (last["epochs"], last["steps"]) == (str(epochs), str(4 * epochs))


@given(st.lists(st.floats()), st.sampled_from(["min", "max"]), st.integers(0, 4))
def test_the_ranking_is_that_of_the_finite_values_the_earlier_of_equals_first(
    values: list[float], mode: Any, num: int
) -> None:
    best = BestValues(Monitor(mode=mode), num)
    for epoch, value in enumerate(values):
        best.take_in(Best(value, epoch))
        resumed = BestValues(Monitor(mode=mode), num)
        resumed.restore(best.state())
        best = resumed
    finite = [Best(value, epoch) for epoch, value in enumerate(values) if math.isfinite(value)]
    sign = 1 if mode == "min" else -1
    assert best.ranked == sorted(finite, key=lambda each: (sign * each.value, each.epoch))[:num]


def test_the_best_epoch_is_kept_although_checkpoints_are_written_more_rarely() -> None:
    values = [3.0, 2.0, 2.5, 1.0, 1.5, 2.0]
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": values[state.epoch]})
    outcome = run("run.epochs=6", "checkpoint.every_epochs=3", "checkpoint.keep_last=1")
    assert outcome.best == (1.0, 4, None)
    kept = sorted(path.stem for path in (outcome.run.state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0004", "epoch-0006"]


def test_where_the_best_checkpoint_was_not_evaluated_no_table_is_called_that_of_the_best() -> None:
    text = f'{TOY}\n[metrics.items]\nuse = "{__name__}:OneItem"\n'
    sets = ("run.epochs=4", "monitor.metric=train/loss", "monitor.mode=max", "validation.every_epochs=2")
    for losses, epochs in (([1.0, 2.0, 1.5, 1.0], "2"), ([1.0, 2.0, 3.0, 1.0], None)):
        recorder.ACTIONS["epoch_end"] = lambda state, losses=losses: state.metrics.update(
            {"train/loss": losses[state.epoch]}
        )
        path = run(*sets, text=text).run.state.folder / "cases_best.csv"
        assert path.is_file() == (epochs is not None)
        assert epochs is None or next(csv.DictReader(path.read_text().splitlines()))["epochs"] == epochs


def test_the_value_of_an_earlier_step_is_not_that_of_the_epochs_end() -> None:
    values = iter([1.0, 5.0, 5.0])
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": next(values)})
    outcome = run("run.epochs=2", "validation.every_steps=3", "validation.every_epochs=2")
    assert outcome.best == (1.0, 0, 3)


def test_a_value_that_is_not_finite_is_never_better_and_never_hard_to_better() -> None:
    for mode in ("min", "max"):
        monitor = Monitor(mode=mode)
        for odd in (math.nan, math.inf, -math.inf):
            assert not monitor.better(odd, None)
            assert not monitor.better(odd, 1.0)
            assert monitor.better(1.0, odd)


def test_a_run_that_stopped_early_has_nothing_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})
    first = run("run.epochs=9", text=EARLY).run.state
    assert len(lines(first.folder)) == 3
    for _ in range(2):
        assert resume_from(first.folder, Console(), allow_code=True, sets=("run.name=other",)) is ExitCode.FINISHED
    said = capsys.readouterr().out
    assert "the run ended after 3 epochs: val/loss has not improved for 2 epochs (best 1, now 1)" in said
    assert "--epochs 19" in said
    assert len(lines(first.folder)) == 3


def test_a_run_that_stopped_early_continues_with_its_whole_patience_if_a_setting_is_changed() -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})
    first = run("run.epochs=9", text=EARLY).run.state
    again = resume(first.folder, "run.epochs=12").run.state
    assert (again.epoch, again.stop_reason) == (5, "val/loss has not improved for 2 epochs (best 1, now 1)")


def test_patience_counts_an_improvement_inside_an_epoch() -> None:
    def value(state: State) -> None:
        state.metrics["val/loss"] = 10.0 - state.step if state.step % 4 else 10.0

    recorder.ACTIONS["validation_end"] = value
    state = run("run.epochs=6", "validation.every_steps=2", text=EARLY).run.state
    assert state.epoch == 6


def test_a_value_that_is_not_a_number_is_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": math.nan})
    run("run.epochs=3")
    said = [record.getMessage() for record in caplog.records if "val/loss" in record.getMessage()]
    assert said == ["val/loss is nan after epoch 1; it does not count as an improvement, and is not the best"]


def test_a_value_that_a_hook_watches_and_that_never_comes_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.pop("val/loss")
    run("monitor.metric=train/loss", "hooks.early.metric=val/loss", "hooks.early.mode=min", text=EARLY)
    said = [record.getMessage() for record in caplog.records if "no such value" in record.getMessage()]
    assert said == ['hooks.early.metric = "val/loss", but no such value was computed; did you mean "train/loss"?']


def test_the_end_of_a_run_that_stopped_early_is_made_up_for_without_another_step() -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})

    def kill(state: State) -> None:
        raise Killed

    recorder.ACTIONS["run_end"] = kill
    with pytest.raises(Killed):
        run("run.epochs=9", text=EARLY)
    (folder,) = Path("runs/toy").iterdir()
    del recorder.ACTIONS["run_end"]
    state = resume(folder).run.state
    assert (state.epoch, state.ended) == (3, "stopped: val/loss has not improved for 2 epochs (best 1, now 1)")
    assert resume_from(folder, Console(quiet=True), allow_code=True) is ExitCode.FINISHED


def test_a_save_before_the_first_evaluation_after_a_resume_is_no_reason_to_miss_a_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = run("run.epochs=1", "monitor.metric=val/loss").run.state.folder
    recorder.ACTIONS["step_end"] = lambda state: state.save("a test")
    resume(folder, "run.epochs=2", on_extend="stretch")
    assert not [record for record in caplog.records if "no such value" in record.getMessage()]


def test_what_was_found_when_a_run_began_is_said_again_only_by_a_resume_that_changes_the_recipe(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = TOY + '[scheduler]\nuse = "reduce_on_plateau"\npatience = 3\n'
    folder = run("run.epochs=3", text=text).run.state.folder
    resume(folder, epoch=1)
    assert not [record for record in caplog.records if "can never" in record.getMessage()]
    resume(folder, "run.epochs=4")
    (said,) = (record.getMessage() for record in caplog.records if "can never" in record.getMessage())
    assert said.startswith("scheduler.patience: ReduceOnPlateau can never reduce the learning rate")
