"""How a run says that its result is doubtful, or that it had not converged."""

from __future__ import annotations

import json
import logging
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import TOY, resume, run

from trainkit import Monitor, State
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.cli import main
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine import run_folder
from trainkit.engine.every_run import metrics_file
from trainkit.engine.every_run.outcome import got_worse, rose, still_improved
from trainkit.engine.start import ExitCode, start
from trainkit.recipe.resolve import resolve_text


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _doubt_at(step: int) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.doubt("the toy is upside down") if state.step == step else None


CommandLine = Callable[..., tuple[int, str]]


@pytest.fixture
def trainkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs the command line, and returns its exit code and its output."""
    monkeypatch.setattr("trainkit.cli.ignore_from_now_on", lambda: None)  # signals of the tests themselves

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["trainkit", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert isinstance(left.value.code, int)
        return left.value.code, capsys.readouterr().out

    return call


def _let_the_loss_be(values: list[float | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what ``metrics.jsonl`` says of the losses, whatever the toy reached."""

    def rewrite(state: State) -> None:
        path = state.folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [line | {"train/loss": value} for line, value in zip(lines, values, strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))

    recorder.ACTIONS["run_end"] = rewrite


def test_a_quiet_run_says_on_standard_error_why_it_is_doubtful(capsys: pytest.CaptureFixture[str]) -> None:
    _doubt_at(3)
    start(resolve_text(TOY, Path.cwd()), Console(quiet=True), report=report)
    assert capsys.readouterr() == ("", "doubtful: the toy is upside down\n")


def test_a_doubtful_run_is_finished_with_exit_code_3_and_says_why_once_and_in_its_report(trainkit: CommandLine) -> None:
    _doubt_at(3)
    Path("toy.toml").write_text(TOY)
    code, said = trainkit("run", "toy.toml")
    assert code == ExitCode.DOUBTFUL == 3
    assert said.count("warning: the result of this run will be doubtful: the toy is upside down") == 1
    assert "doubtful:       the toy is upside down" in said
    (folder,) = Path("runs/toy").iterdir()
    assert run_folder.starts(folder)[-1]["finished"] is True
    assert run_folder.doubts(folder) == ["the toy is upside down"]
    assert "the toy is upside down" in (folder / "log.txt").read_text()


def test_continue_and_a_queue_take_it_for_finished_with_the_same_exit_code(trainkit: CommandLine) -> None:
    _doubt_at(3)
    Path("toy.toml").write_text(TOY)
    Path("other.toml").write_text(TOY.replace('"toy"', '"other"'))
    assert trainkit("run", "toy.toml")[0] == 3
    recorder.ACTIONS.clear()
    code, said = trainkit("run", "toy.toml", "other.toml", "--continue")
    assert code == 3
    assert "finished already, but doubtful" in said
    assert "the toy is upside down" in said
    assert len(list(Path("runs/toy").iterdir())) == 1
    code, said = trainkit("resume", "toy", "--allow-code")
    assert code == 3
    assert said.count("doubtful: the toy is upside down") == 1


def test_a_run_that_fails_counts_more_than_one_that_is_doubtful(trainkit: CommandLine) -> None:
    def act(state: State) -> None:
        if "/other/" in str(state.folder):
            raise RuntimeError("no")
        state.doubt("the toy is upside down")

    recorder.ACTIONS["epoch_start"] = act
    Path("toy.toml").write_text(TOY)
    Path("other.toml").write_text(TOY.replace('"toy"', '"other"'))
    assert trainkit("run", "other.toml", "toy.toml")[0] == 1


def test_a_doubt_survives_a_stop_and_a_resume() -> None:
    def act(state: State) -> None:
        if state.step == 3:
            state.doubt("the toy is upside down")
            state.interrupt("now")

    recorder.ACTIONS["step_end"] = act
    stopped = run()
    assert stopped.code is ExitCode.STOPPED
    recorder.ACTIONS.clear()
    ended = resume(stopped.run.state.folder)
    assert ended.code is ExitCode.DOUBTFUL
    assert ended.run.state.doubts == ["the toy is upside down"]
    saved = CheckpointFolder(ended.run.state.folder / "checkpoints").newest_good(print)[1]
    assert saved["doubts"] == ["the toy is upside down"]


def test_a_run_whose_loss_rose_by_orders_of_magnitude_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_the_loss_be([2.0, 3e34], monkeypatch)
    ended = run()
    assert ended.code is ExitCode.DOUBTFUL
    (text,) = ended.run.state.doubts
    assert "train/loss ends at 3e+34, after 2 at first and 2 at best" in text


def test_a_loss_that_is_not_finite_at_the_end_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_the_loss_be([2.0, None], monkeypatch)
    assert run().run.state.doubts == ["at the end, train/loss is not a finite number"]


def test_what_others_wrote_into_the_metrics_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_the_loss_be([2.0, "as before"], monkeypatch)  # type: ignore[list-item]
    assert run().code is ExitCode.FINISHED


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1" + 400 * "0"])
def test_a_number_of_the_metrics_that_is_not_finite_is_read_as_none(value: str, tmp_path: Path) -> None:
    line = f'{{"finished_epochs": 0, "step": 4, "val/loss": {value}, "note": "mine", "ok": true}}'
    (tmp_path / "metrics.jsonl").write_text(line)
    assert metrics_file.read(tmp_path) == [{"finished_epochs": 0, "step": 4, "val/loss": None}]


def test_a_resumed_run_is_judged_by_all_of_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.interrupt("now") if state.step == 6 else None
    stopped = run()
    recorder.ACTIONS.clear()
    path = stopped.run.state.folder / "metrics.jsonl"
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(json.dumps(line | {"train/loss": line["train/loss"] * 1e-9}) + "\n")
    assert resume(stopped.run.state.folder).code is ExitCode.DOUBTFUL


def test_a_loss_that_means_something_else_since_a_resume_is_judged_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run().run.state
    weighed = resume(first.folder, "run.epochs=4", "losses.squares.weight=1e6")
    assert weighed.code is ExitCode.FINISHED
    assert resume(weighed.run.state.folder, "run.epochs=6").code is ExitCode.FINISHED  # this is remembered
    _let_the_loss_be([1.0, 1.0, 1e6, 1e6, 1e6, 1e6, 1e9], monkeypatch)
    assert resume(weighed.run.state.folder, "run.epochs=7").code is ExitCode.DOUBTFUL


@pytest.mark.parametrize(("scheduler", "option"), [("none", ""), ("polynomial", " --on-extend restart")])
def test_a_run_that_had_not_converged_is_not_doubtful_and_says_how_to_go_on(
    trainkit: CommandLine, scheduler: str, option: str
) -> None:
    Path("toy.toml").write_text(TOY)
    sets = ("run.epochs=12", "optimizer.lr=1e-4", f"scheduler.use={scheduler}")
    code, said = trainkit("run", "toy.toml", *(word for each in sets for word in ("--set", each)))
    assert code == 0
    assert "warning: the run had not converged: val/loss still improved by" in said
    advice = re.search(r"for example: trainkit (resume .*)", said)
    assert advice is not None
    assert advice[1].endswith(f" --epochs 24 --allow-code{option}")
    code, said = trainkit(*advice[1].split())
    assert code == 0, said
    assert "epoch 24/24" in said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 0.5, 0.2], False),
        ([1.0, 0.9, 11.0], True),
        ([1.0, 2.0, 5.0], False),  # overfitting, for example
        ([1e5, 1.0, 101.0], True),  # most of what was gained is lost
        ([1.0, 1e-10, 1e-8], False),  # both are nothing but rounding
        ([-1e6, -1.1e6, -9e5], False),  # a likelihood without its constant
        ([-1e6, -1.1e6, 3e34], True),
        ([1e-3, -5.0, 0.02], False),
        ([0.0, 0.0], False),
        ([3.0], False),
    ],
)
def test_a_loss_rose_if_its_end_is_orders_of_magnitude_above_its_start_or_its_best(
    values: list[float], expected: bool
) -> None:
    assert rose(values) is expected


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_still_falls_is_told_from_scatter_and_from_what_had_converged(mode: str) -> None:
    monitor, sign = Monitor(mode=mode), 1.0 if mode == "min" else -1.0
    draw = random.Random(1)
    epochs = range(1, 101)
    falling = [sign * (1 - 0.005 * epoch + draw.gauss(0, 0.001)) for epoch in epochs]
    gain = still_improved(falling, monitor)
    assert gain is not None
    assert gain[:2] == (pytest.approx(0.005 * 19, rel=0.05), 20)
    assert gain.share == pytest.approx(19 / 99, rel=0.05)
    for _ in range(200):
        flat = [sign * (math.exp(-epoch / 5) + draw.gauss(0, 0.01)) for epoch in epochs]
        assert still_improved(flat, monitor) is None
    assert still_improved([sign * math.exp(-epoch) for epoch in epochs], monitor) is None  # nothing is left to gain
    assert still_improved([-value for value in falling], monitor) is None
    assert still_improved(falling[:9], monitor) is None  # too few to tell


@pytest.mark.parametrize(("rate", "level"), [(0.02, "WARNING"), (0.06, "INFO")])
def test_a_run_that_gains_little_at_its_end_is_said_to_have_nearly_converged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rate: float, level: str
) -> None:
    values = [1000.0 + 500.0 * math.exp(-rate * epoch) for epoch in range(40)]  # 13 and 6 % in the last fifth
    monkeypatch.setattr(
        metrics_file,
        "read",
        lambda folder: [
            {metrics_file.EPOCHS: epoch + 1, "step": epoch, "seconds": 1.0, "val/loss": value}
            for epoch, value in enumerate(values)
        ],
    )
    caplog.set_level(logging.INFO, "trainkit")
    run()
    (said,) = (record for record in caplog.records if "of what it improved in the whole run" in record.getMessage())
    assert said.levelname == level
    assert said.getMessage().startswith("the run had not" if level == "WARNING" else "nearly converged: val/loss still")
    share = float(said.getMessage().split("that is ")[1].split(" %")[0])
    assert share == pytest.approx(100 * (values[32] - values[-1]) / (values[0] - values[-1]), rel=0.1)
    assert "trainkit resume" in said.getMessage()


def test_a_loss_that_rises_at_the_end_by_much_of_what_it_had_fallen_got_worse() -> None:
    falling = [700.0 + 300.0 * math.exp(-epoch / 3) + (epoch % 2) for epoch in range(20)]
    rising = [*falling, *(700.0 + 20.0 * number for number in range(1, 8))]  # a mask that eats into a probe
    assert got_worse(rising)
    assert not got_worse(falling)
    assert not got_worse([*falling, *(700.0 + 3.0 * number for number in range(1, 8))])  # by little
    assert not got_worse([*falling[:-1], 900.0])  # once
    assert not got_worse(rising[-9:])  # too few to tell


def test_a_run_whose_training_loss_rises_too_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    losses = [9.0, 5.0, 3.0, 2.0, 2.0, 2.0, 2.1, 2.4, 2.8, 3.3, 3.9]
    for training, said in ((losses, True), (sorted(losses, reverse=True), False)):  # the second one is overfitting
        caplog.clear()
        lines = [
            {metrics_file.EPOCHS: epoch + 1, "step": epoch, "seconds": 1.0, "train/loss": train, "val/loss": value}
            for epoch, (train, value) in enumerate(zip(training, losses, strict=True))
        ]
        monkeypatch.setattr(metrics_file, "read", lambda folder, lines=lines: lines)
        run()
        assert ("val/loss rose from 2 after epoch 4 to 3.9, and train/loss from 2 to 3.9" in caplog.text) == said
