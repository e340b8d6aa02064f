"""Everything that names an epoch says how many are finished; files of versions that counted from 0 are read as such."""

from __future__ import annotations

import csv
import json
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from clients import recorder
from clients.toy_run import TOY, lines, resume, run
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

import trainkit
from trainkit import PartError
from trainkit.checkpoint.file import read_header
from trainkit.cli.run import report
from trainkit.console import Console
from trainkit.engine.every_run import metrics_file
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit.runs.record import RunRecord

STAGED = f"""{TOY}
[groups.first]
parameters = ["0.*"]
[groups.second]
parameters = ["2.*"]
start_epoch = 2
[loggers.lines]
use = "jsonl"
[loggers.tables]
use = "csv"
[loggers.tensorboard]
use = "tensorboard"
"""
WITHIN = "validation.every_steps=3"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def older(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line as versions wrote it that counted epochs from 0."""
    rest = dict(line)
    finished = rest.pop("finished_epochs")
    return {"epoch": finished - ("seconds" in line), **rest}


def make_older(folder: Path, number: int | None = None) -> None:
    """Rewrite the first lines of a run's values as an older version wrote them."""
    found = lines(folder)
    number = len(found) if number is None else number
    written = [*map(older, found[:number]), *found[number:]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": "seconds" in line} for line in lines(folder)]


def test_all_that_a_run_writes_and_says_counts_finished_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    resolved = resolve_text(STAGED, Path.cwd(), ("run.epochs=4", "checkpoint.keep_last=9"))
    state = start(resolved, Console(as_json=True), report=report).run.state
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    folder = state.folder
    values = {line["finished_epochs"]: line["val/loss"] for line in lines(folder)}
    assert list(values) == [1, 2, 3, 4]
    with (folder / "epochs.csv").open(newline="") as file:
        assert {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(file)} == values
    logged = [json.loads(line) for line in (folder / "values.jsonl").read_text().splitlines()]
    assert {line["epoch"]: line["val/loss"] for line in logged if "val/loss" in line} == values
    assert {each["epoch"]: each["values"]["val/loss"] for each in said if each["type"] == "epoch"} == values
    board = EventMultiplexer().AddRunsFromDirectory(str(folder / "tensorboard")).Reload()
    points = {each.step: each.value for each in board.Scalars("val", "loss/total")}
    assert points == pytest.approx(values)
    opened = trainkit.open_run(folder, allow_code=True)
    assert dict(zip(opened.metrics["finished_epochs"], opened.metrics["val/loss"], strict=True)) == values
    assert {value.place.epochs: value.value for value in RunRecord(folder).values.of("val/loss")} == values
    for epoch, value in values.items():
        saved = read_header(folder / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
        assert (saved["epoch"], saved["metrics"]["val/loss"]) == (epoch, value)
    # The group whose start_epoch is 2 starts when two epochs are finished, and has a rate in the third one.
    (started,) = [each for each in said if each["type"] == "group_start" and each["group"] == "second"]
    (mark,) = [line for line in logged if "stages/second_optimization_started" in line]
    (plotted,) = board.Scalars("train", "stages/second_optimization_started")
    assert (started["epoch"], mark["epoch"], plotted.step) == (2, 2, 2)
    rates = {row["finished_epochs"]: row["second"] for row in opened.plan()}
    assert [epoch for epoch, rate in rates.items() if rate is not None] == [2, 3]
    assert [line["finished_epochs"] for line in lines(folder) if line["lr/second"] > 0] == [3, 4]
    best = min(values, key=values.__getitem__)
    (end,) = [each for each in said if each["type"] == "end"]
    found = RunRecord(folder).best
    assert found is not None
    assert (end["best"]["epoch"], found.place.epochs, opened.best and opened.best.epoch) == (best, best, best)


def test_the_values_of_an_older_version_are_read_as_those_of_this_one() -> None:
    folder = run("run.epochs=4", WITHIN).run.state.folder
    read, values = metrics_file.read(folder), RunRecord(folder).values
    assert {"seconds" in line for line in read} == {True, False}
    for number in range(len(read) + 1):  # also of a file that an older version began and this one continued
        make_older(folder, number)
        assert metrics_file.read(folder) == read
        assert RunRecord(folder).values == values
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in read))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The values of a run that nothing stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        recorder.ACTIONS.clear()
        return without_times(run("run.epochs=4", WITHIN).run.state.folder)


@pytest.mark.parametrize(
    ("stop_at", "how"), [(6, "killed"), (9, "killed"), (14, "killed"), (8, "stopped"), (10, "stopped")]
)
def test_a_run_that_an_older_version_began_has_each_line_once_and_counts_in_one_way(
    stop_at: int, how: str, whole: list[dict[str, Any]]
) -> None:
    def end(state: trainkit.State) -> None:
        if state.step == stop_at and how == "killed":
            raise ValueError("no more")
        if state.step == stop_at:
            state.interrupt("now")

    recorder.ACTIONS["step_end"] = end
    with pytest.raises(PartError) if how == "killed" else nullcontext():
        run("run.epochs=4", WITHIN, "checkpoint.every_epochs=2")  # lines after the last one are written again
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/toy").iterdir()
    for number in {0, len(lines(folder)) // 2, len(lines(folder))}:
        copy = Path(f"runs/copy/{number}")
        shutil.copytree(folder, copy)
        make_older(copy, number)
        resume(copy)
        assert without_times(copy) == whole


def test_a_branch_from_an_older_run_counts_in_one_way_and_leaves_that_run_as_it_is() -> None:
    folder = run("run.epochs=4", "checkpoint.keep_last=9").run.state.folder
    make_older(folder)
    before = (folder / "metrics.jsonl").read_bytes()
    other = resume(folder, epoch=2).run.state.folder
    assert [line["finished_epochs"] for line in lines(other)] == [1, 2, 3, 4]
    assert not any("epoch" in line for line in lines(other))
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_any_mixture_of_lines_is_read_and_cut_back_by_finished_epochs(tmp_path: Path) -> None:
    """Held against lines that are made with their true number, then written in either way."""
    rng = random.Random(7)
    for trial in range(60):
        made, step = [], 0
        for epoch in range(rng.randint(1, 6)):
            for _ in range(rng.randint(0, 2)):
                step += 1
                made.append({"finished_epochs": epoch, "step": step, "val/loss": rng.random()})
            step += 1
            made.append({"finished_epochs": epoch + 1, "step": step, "val/loss": rng.random(), "seconds": 1.0})
        folder = tmp_path / str(trial)
        folder.mkdir()
        written = [older(line) if rng.random() < 0.5 else line for line in made]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
        assert metrics_file.read(folder) == made
        epochs = rng.randint(0, made[-1]["finished_epochs"])
        steps = max(
            (line["step"] for line in made if "seconds" in line and line["finished_epochs"] <= epochs), default=0
        )
        metrics_file.cut_back(folder, epochs, steps)
        assert lines(folder) == [line for line in made if line["step"] <= steps]
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["finished_epochs", "epoch", "step", "seconds"])
def test_a_part_cannot_set_what_a_line_counts_with(name: str) -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({name: 7.0})
    with pytest.raises(PartError, match=f'"{name}"'):
        run()
