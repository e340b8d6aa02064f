"""What a run says while it runs: first lines, a line for each epoch, where the time goes, and how much is left."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from clients import recorder
from clients.toy import Line, LiveLine, Squares
from clients.toy_run import TOY, lines, resume

from trainkit import Context, Monitor, component
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine import stopwatch
from trainkit.engine.every_run import progress
from trainkit.engine.every_run.epoch_line import EpochLine
from trainkit.engine.every_run.time_left import Estimator
from trainkit.engine.picture_budget import USUAL_SECONDS
from trainkit.engine.prices import Prices
from trainkit.engine.stages import Stage, Stages
from trainkit.engine.start import RunOutcome, start
from trainkit.engine.stopwatch import Stopwatch, shares_in_words
from trainkit.live_line import LiveLine as LineOnTerminal
from trainkit.recipe.resolve import resolve_text
from trainkit.state import Group, State

NOW = [0.0]


class SlowLine(LiveLine):
    def batch(self, *place: int) -> Any:
        NOW[0] += 0.0 if place[0] < 0 else 1.0  # seconds that the training waits for a batch
        return super().batch(*place)

    def summary(self) -> str:
        return "points without end"


@component
class Slow(Line):
    """Points that take their time."""

    def build(self, context: Context) -> SlowLine:
        return SlowLine(context.seed, self.batch_size)


@component
class SlowSquares(Squares):
    """A loss that takes its time."""

    def build(self, data: object) -> Any:
        squares = super().build(data)

        def slow_squares(outputs: Any, batch: Any, model: Any) -> Any:
            NOW[0] += 2.0 if model.training else 6.0
            return squares(outputs, batch, model)

        return slow_squares


SLOW = (
    TOY.replace("clients.toy:Line", "engine.test_progress:Slow")
    .replace("clients.toy:Squares", "engine.test_progress:SlowSquares")
    .replace("epochs = 2", "epochs = 6")
)


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: NOW[0])


def run(*sets: str, **how: bool) -> RunOutcome:
    return start(resolve_text(SLOW, Path.cwd(), sets), Console(**how), report=report)


def waits(seconds: float) -> Callable[[State], None]:
    def wait(state: State) -> None:
        NOW[0] += seconds

    return wait


def test_each_second_is_counted_once_and_to_what_it_was_spent_on(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS |= {"step_end": waits(0.5), "picture": waits(10.0), "checkpoint": waits(0.25)}
    recorder.ACTIONS["run_end"] = waits(3.0)
    began = NOW[0]
    outcome = run("pictures.every_epochs=3", as_json=True)
    spent = outcome.run.watch.totals()
    assert sum(spent.values()) == pytest.approx(NOW[0] - began)
    assert {what: seconds for what, seconds in spent.items() if seconds} == {
        "steps": 24 * 2.0,
        "data": 24 * 1.0,
        "validation": 6 * 6.0,
        "hooks": 24 * 0.5 + 6 * 0.25 + 3.0,
        "pictures": 2 * 10.0,
    }
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    epochs = [sum(each["seconds"].values()) for each in said if each["type"] == "epoch"]
    assert epochs == [20.25, 20.25, 30.25, 20.25, 20.25, 30.25]  # 4 · 3.5 + 6 + 0.25, and pictures
    assert sum(line["seconds"] for line in lines(outcome.run.state.folder)) == pytest.approx(sum(epochs) - 0.25)


def test_the_time_left_is_right_after_three_epochs_in_which_all_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["picture"] = waits(10.0)
    ends = []
    recorder.ACTIONS["epoch_start"] = lambda state: ends.append(NOW[0])
    run("run.epochs=20", "pictures.every_epochs=2", as_json=True)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    epochs = [each for each in said if each["type"] == "epoch"]
    left = [(each["seconds_left"], each["takes_longer"]) for each in epochs]
    end = NOW[0]
    assert epochs[0]["is_guess"]  # no picture has been made yet
    assert not epochs[10]["is_guess"]
    for number in range(3, 20):
        seconds, takes_longer = left[number - 1]
        assert not takes_longer
        assert seconds == pytest.approx(end - ends[number], rel=0.1)


def state_of(starts: dict[str, int], epochs: int, steps_per_epoch: int = 10) -> State:
    parameters: Any = {"p": None}
    groups = {
        name: Group(parameters, 1.0, active=True, start_epoch=start, stop_epoch=epochs)
        for name, start in starts.items()
    }
    nothing: Any = None
    return State(nothing, epochs, nothing, nothing, groups, Monitor(metric="val/loss", mode="min"), steps_per_epoch)


def estimator_of(recipe: Any, state: State, **known: Any) -> Estimator:
    return Estimator(recipe, Stages(recipe, state.groups, {}, state.epochs), **known)


@pytest.mark.parametrize("warm_up", [0.0, 30.0])
def test_an_epoch_in_which_more_groups_train_is_expected_to_take_as_long_as_those_like_it(warm_up: float) -> None:
    """Over the epochs of a simulated run, whose costs are not those of the estimate's own making."""

    def cost(epoch: int) -> dict[str, float]:
        steps = 10.0 + 5.0 * (epoch >= 10) + 25.0 * (epoch >= 20) + warm_up * (epoch == 0)
        pictures = 8.0 if epoch % 5 == 4 or epoch == 39 else 0.0
        return {"steps": steps, "validation": 2.0, "pictures": pictures, "checkpoint": 0.5, "rest": 0.1}

    recipe = resolve_text(TOY, Path.cwd(), ("pictures.every_epochs=5",)).recipe
    state = state_of({"object": 0, "probe": 10, "dr": 20}, 40)
    estimator = estimator_of(recipe, state)
    assert estimator.left(state) is None
    for epoch in range(40):
        state.epoch, state.step = epoch + 1, 10 * (epoch + 1)
        state.epoch_step = state.step
        estimator.take_in(state, cost(epoch), 10 * epoch)
        left, truth = estimator.left(state), sum(sum(cost(each).values()) for each in range(epoch + 1, 40))
        assert left is not None
        if 1 <= epoch < 20:  # the stages to come have no price yet, which is said
            assert left.is_least
            assert left.seconds < truth
        elif epoch >= 22:
            assert not left.is_least
            assert left.seconds == pytest.approx(truth, rel=0.1, abs=1e-9)


def test_within_an_epoch_what_is_done_of_it_is_taken_off() -> None:
    recipe = resolve_text(TOY, Path.cwd(), ()).recipe
    state = state_of({"object": 0}, 4)
    estimator = estimator_of(recipe, state)
    state.epoch, state.step, state.epoch_step = 1, 10, 10
    estimator.take_in(state, {"steps": 20.0, "validation": 4.0, "pictures": 0.0, "checkpoint": 1.0}, 0)
    left = estimator.left(state)
    assert left is not None
    # What is saved counts to the next epoch, so nothing is known of it yet; the last pictures come on top.
    assert left.seconds == pytest.approx(3 * 24.0 + USUAL_SECONDS)
    state.step += 5
    left = estimator.left(state)
    assert left is not None
    assert left.seconds == pytest.approx(3 * 24.0 - 10.0 + USUAL_SECONDS)


def stage(*groups: str) -> Stage:
    return Stage(frozenset((group, "") for group in groups))


@pytest.mark.parametrize("how", ["earlier", "tried", "nothing"])
def test_the_price_of_a_stage_to_come_is_that_of_an_earlier_run_or_of_a_trial_and_else_the_time_left_is_a_bound(
    how: str,
) -> None:
    """The run is twice as slow as the earlier one; of each of its steps, 0.5 s are no computing, whatever trains."""
    recipe = resolve_text(TOY, Path.cwd(), ()).recipe
    state = state_of({"object": 0, "probe": 10}, 20)
    both = stage("object", "probe")
    known: dict[str, Any] = {}
    if how == "earlier":
        steps = {stage("object").key: 0.75, both.key: 1.25}
        known["earlier"] = Prices(steps, {both.key: 1.5}, pictures=1.0, ending=5.0)
    elif how == "tried":
        known["tried"] = lambda: {stage("object"): 0.1, both: 0.2}
        state.announce_ending(7.0)
        state.announce_ending(3.0)
    estimator = estimator_of(recipe, state, **known)
    for epoch in range(3):
        state.epoch, state.step = epoch + 1, 10 * (epoch + 1)
        state.epoch_step = state.step
        cost = {"steps": 10.0, "data": 5.0, "validation": 2.0, "pictures": 0.0, "checkpoint": 0.0}
        estimator.take_in(state, cost, 10 * epoch)
    left = estimator.left(state)
    assert left is not None
    steps = 7 * 15.0 + 10 * {"earlier": 2 * 12.5, "tried": 5.0 + 20.0, "nothing": 15.0}[how]
    validation = 7 * 2.0 + 10 * (3.0 if how == "earlier" else 2.0)
    rest = {"earlier": 2.0 * (1.0 + 5.0), "tried": 2.0 + 10.0, "nothing": 2.0}[how]  # pictures of the end, the ending
    assert left.seconds == pytest.approx(steps + validation + rest)
    assert left.is_least == (how == "nothing")
    assert str(left).startswith({"earlier": "~ ", "tried": "~ ", "nothing": "> "}[how])


def test_an_epoch_in_which_a_part_changes_what_it_computes_begins_a_stage_that_was_not_seen() -> None:
    recipe: Any = resolve_text(TOY, Path.cwd(), ()).recipe
    state = state_of({"object": 0}, 10)

    class Part:
        def timeline(self, epochs: int) -> Any:
            return [(0, "one slice"), (4, "twelve slices")]

    class Told:
        data = model = Part()
        losses: Any = MappingProxyType({})

    stages = Stages(Told(), state.groups, {}, 10)  # type: ignore[arg-type]
    estimator = Estimator(recipe, stages)
    assert [(begin, end) for begin, end, _ in stages.between(1, 10)] == [(1, 4), (4, 10)]
    for epoch in range(6):
        state.epoch = epoch + 1
        state.step = state.epoch_step = 10 * (epoch + 1)
        estimator.take_in(state, {"steps": 1.0, "validation": 0.0, "pictures": 0.0, "checkpoint": 0.0}, 10 * epoch)
        left = estimator.left(state)
        assert left is not None
        assert left.is_least == (epoch < 4)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("monitor", ["val/loss", "truth/position_rmse_angstrom"])
def test_the_line_of_an_epoch_fits_and_names_the_monitored_value_first(width: int, monitor: str) -> None:
    state = state_of({"object": 0, "probe": 2}, 1000)
    state.monitor = Monitor(metric=monitor, mode="min")
    layout, said = EpochLine(), []
    for epoch in (1, 2, 999):
        state.epoch = epoch
        state.metrics = {"train/loss": 1.2e-5 * epoch, "val/dice": 0.5, "val/loss": 3.0 / epoch, monitor: -1.0 * epoch}
        said.append(layout.text(state, is_best=epoch == 2, took="0:01:07", left="> 11:22:33 left", width=width))
    for text, epoch in zip(said, (1, 2, 999), strict=True):
        assert len(text) <= width
        assert text.startswith(f"epoch {epoch:>4}/1000  {monitor} -{epoch}"[: width - 1])
        if width >= 80:
            assert text.endswith("> 11:22:33 left")
    if width >= 80:
        assert ["*" in text for text in said] == [False, True, False]
    assert ("train/loss" in said[0]) == (width >= 80 and (monitor == "val/loss" or width == 200))
    assert ("lr object" in said[0]) == (width == 200)


def test_a_run_begins_with_what_it_runs_on_and_marks_its_best_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": abs(2.0 - state.epoch)})
    outcome = run()
    said = capsys.readouterr().out
    assert re.search(r"^device:     cpu, \d+ threads?, fp32$", said, re.M)
    assert re.search(r"^data:       engine\.test_progress:Slow, points without end$", said, re.M)
    assert re.search(r"^model:      clients\.toy:Perceptron, 41 parameters$", said, re.M)
    assert re.search(r"^groups:     other  41  trains from the start$", said, re.M)
    assert re.search(r"^length:     6 epochs of 4 steps$", said, re.M)
    marks = re.findall(r"^epoch (\d)/6  val/loss (\d) (\*?)", said, re.M)
    assert marks == [(str(n), str(abs(3 - n)), "*" if n <= 3 else "") for n in range(1, 7)]
    assert all(len(line) <= 80 for line in said.splitlines() if line.startswith("epoch "))
    assert re.search(r"^time:           1:48: training .* %", said.replace("0:01:48", "1:48"), re.M)
    log = (outcome.run.state.folder / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ(  |$)", line) for line in log)


def test_what_was_best_before_is_not_marked_again_after_a_resume(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0 + (state.epoch != 1)})
    folder = run("run.epochs=3").run.state.folder
    capsys.readouterr()
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.5 - (state.epoch == 4)})
    resume(folder, "run.epochs=5", quiet=False)
    said = capsys.readouterr().out
    assert "continues:  after 3 epochs, 12 steps" in said
    assert re.findall(r"^epoch (\d)/5  val/loss [\d.]+ (\*?)", said, re.M) == [("4", ""), ("5", "*")]


def test_shares_add_up_and_small_ones_are_among_the_rest() -> None:
    said = shares_in_words({"steps": 1.0, "validation": 1.0, "checkpoint": 1.0, "hooks": 0.01, "rest": 0.0})
    assert sum(map(int, re.findall(r"(\d+) %", said))) == 100
    assert "hooks" not in said
    assert shares_in_words({"steps": 0.0}) == ""


def test_a_watch_goes_back_to_what_was_under_way_even_if_a_hook_fails() -> None:
    watch = Stopwatch()
    watch.switch("steps")

    def fail() -> None:
        with watch.during("validation"):
            NOW[0] += 2.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    NOW[0] += 1.0
    assert watch.totals() | {"steps": 1.0, "validation": 2.0} == watch.totals()


class Screen:
    """A terminal that breaks long lines, and does so anew when its width changes; it knows what we send."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.column = width, [""], 0

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[J|\r|\n|[^\x1b\r\n]+", text):
            if part == "\x1b[J":
                self.lines[-1] = self.lines[-1][: self.column]
            elif part == "\r":
                self.column = 0
            elif part == "\n":
                self.lines.append("")
                self.column = 0
            else:
                before = self.lines[-1]
                self.lines[-1] = before[: self.column] + part + before[self.column + len(part) :]
                self.column += len(part)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_the_live_line_stays_below_all_others_and_never_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen: Any = Screen(40)
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", stderr)
    with LineOnTerminal(screen, lambda: screen.width) as line:
        line.show("in epoch 1/3  step 2/9  loss 0.25  \x1b[2J1:02:03 left")
        assert screen.lines[-1] == "in epoch 1/3  step 2/9  loss 0.25  \\u0…"
        assert (len(screen.lines[-1]), screen.column) == (39, 0)
        line.print_above("epoch 1/3  val/loss 0.5")
        print("a hook", end=" ")
        print("says this")
        screen.width = 20
        line.show("in epoch 2/3  step 1/9  loss 0.25")
        assert screen.lines == ["epoch 1/3  val/loss 0.5", "a hook says this", "in epoch 2/3  step…"]
        print("no end", end="")
    assert screen.lines == ["epoch 1/3  val/loss 0.5", "a hook says this", "no end", ""]
    assert stderr.getvalue() == ""


def test_the_live_line_changes_at_most_four_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.time, "perf_counter", lambda: NOW[0])
    monkeypatch.setenv("TERM", "xterm")
    screen: Any = Screen(80)
    shown: list[float] = []
    monkeypatch.setattr(LineOnTerminal, "show", lambda self, text: shown.append(NOW[0]) if text else None)
    monkeypatch.setattr("sys.stdout", screen)
    recorder.ACTIONS["step_end"] = waits(-2.9)  # so that a step takes a tenth of a second
    run("run.epochs=2")
    assert len(shown) > 2
    assert all(later - earlier >= 0.25 for earlier, later in pairwise(shown))


@pytest.mark.parametrize("how", ["quiet", "dumb", "piped"])
def test_where_no_live_line_can_be_no_character_is_one_that_only_a_terminal_understands(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "dumb" if how == "dumb" else "xterm")
    if how == "dumb":
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run("run.epochs=1", quiet=how == "quiet")
    said = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in said)
    assert ("in epoch 1/1  step 1/4  loss " in said) == (how != "quiet")
    assert (said == "") == (how == "quiet")


def test_after_the_last_epoch_the_live_line_says_what_the_run_still_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen: Any = Screen(80)
    monkeypatch.setattr("sys.stdout", screen)
    seen: list[str] = []
    recorder.ACTIONS["run_end"] = lambda state: seen.append(screen.lines[-1])
    run("run.epochs=2")
    assert seen == ["finishing: results and last pictures"]
    assert "finishing" not in screen.lines[-1]


def test_a_run_that_is_asked_to_stop_has_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.stop("a test") if state.epoch == 2 else None
    run(as_json=True)
    said = [each for each in map(json.loads, capsys.readouterr().out.splitlines()) if each["type"] == "epoch"]
    assert [each["seconds_left"] is None for each in said] == [False, False, True]
