"""Loggers that write in a thread: files that a resume cuts back, and what happens if one is slow or broken."""

from __future__ import annotations

import csv
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from clients import recorder
from clients.toy_run import PARTS, resume, run

from trainkit import Context, InBackground, Logger, PartError, Place, Sink, Start, State, component

EPOCHS, STEPS = 5, 4
TEXT = f"""
trainkit = 1
[run]
name = "toy"
epochs = {EPOCHS}
device = "cpu"
{PARTS}
[validation]
every_epochs = 2
[checkpoint]
every_epochs = 2
keep_last = 10
best = 0
[groups.first]
parameters = ["0.*"]
[groups.second]
parameters = ["2.*"]
start_epoch = 2
[hooks.recorder]
use = "clients.recorder:Recorder"
"""
FILES = """
[loggers.lines]
use = "jsonl"
every_steps = 3
[loggers.tables]
use = "csv"
every_steps = 3
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Broken.sinks.clear()


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what is in the files, without times."""
    found = {"lines": [without_times(json.loads(line)) for line in (folder / "values.jsonl").read_text().splitlines()]}
    for name in ("epochs.csv", "steps.csv"):
        with (folder / name).open(newline="") as file:
            found[name] = [without_times(row) for row in csv.DictReader(file)]
    return found


def fail_at(step: int) -> None:
    def fail(state: State) -> None:
        if state.step == step:
            raise ValueError("no more")

    recorder.ACTIONS["step_end"] = fail


def test_the_files_have_what_metrics_jsonl_has_and_more() -> None:
    folder = run(text=TEXT + FILES).run.state.folder
    found = written(folder)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in found["lines"] if "train/loss" in line and line["by"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, EPOCHS + 1))
    for line, row, expected in zip(epochs, found["epochs.csv"], metrics, strict=True):
        for name in ("train/loss", "val/loss", "lr/first", "lr/second"):
            assert line.get(name) == expected.get(name)
            assert row[name] == ("" if name not in expected else repr(expected[name]))
    assert [int(row["step"]) for row in found["steps.csv"]] == [3, 6, 9, 12, 15, 18]
    marks = [line for line in found["lines"] if "stages/second_optimization_started" in line]
    assert [(line["epoch"], line["by"]) for line in marks] == [(2, "epoch")]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 10, 18])
def test_a_resumed_run_has_each_line_and_row_once(step: int) -> None:
    whole = written(run(text=TEXT + FILES).run.state.folder)
    fail_at(step)
    with pytest.raises(PartError):
        run("run.name=again", text=TEXT + FILES)
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/again").iterdir()
    with (folder / "values.jsonl").open("a") as file:  # what a killed process may leave
        file.write('{"by": "epoch", "epo')
    with (folder / "epochs.csv").open("a") as file:
        file.write("5,20,0.1")
    resume(folder)
    assert written(folder) == whole


@pytest.mark.slow
def test_a_branch_has_the_lines_of_its_parent_up_to_its_beginning() -> None:
    parent = run(text=TEXT + FILES).run.state.folder
    whole = written(parent)
    assert written(resume(parent, epoch=2).run.state.folder) == whole
    assert written(parent) == whole


# ---- a third party's logger that is slow or broken ------------------------------------------------------------------


class Kept(Sink):
    """Keeps what it is given, and fails or waits where a test says so."""

    name = "the third party"

    def __init__(self, fails: str) -> None:
        self.fails, self.seen, self.go = fails, [], threading.Event()
        self.closed = ""

    def open(self, start: Start) -> None:
        if self.fails == "open":
            raise ConnectionError("no such server")

    def write(self, values: Mapping[str, float], place: Place) -> None:
        if self.fails == "slow":
            self.go.wait(30)
        if self.fails == "write" and place.at == 2 and place.by == "epoch":
            raise SystemExit(3)
        self.seen.append((place, dict(values)))

    def close(self, ended: str) -> None:
        self.closed = ended
        if self.fails == "close":
            raise OSError("the disk is full")


@component
class Broken(Logger):
    """A logger as a third party writes it: it hands a sink to the core."""

    sinks: ClassVar[list[Kept]] = []
    fails: str = ""

    def build(self, context: Context) -> object:
        self.sinks.append(Kept(self.fails))
        if self.fails == "slow":
            return InBackground(self.sinks[-1], every_steps=0, capacity=3, end_seconds=1.0)
        # room and time for all that waits while a busy machine holds the thread up
        return InBackground(self.sinks[-1], every_steps=0)


def run_with(fails: str) -> tuple[str, Kept]:
    text = f'{TEXT}[loggers.far]\nuse = "loggers.test_files_and_thread:Broken"\nfails = "{fails}"\n'
    if fails == "slow":  # it is released when the run is over
        recorder.ACTIONS["run_end"] = lambda state: None
    ended = run(text=text)
    return ended.run.state.ended, Broken.sinks[-1]


def test_a_logger_of_a_third_party_gets_everything_in_order() -> None:
    ended, sink = run_with("")
    assert ended == sink.closed == "finished"
    assert [place.at for place, values in sink.seen if "train/loss" in values] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize(
    ("fails", "reason", "lost"),
    [
        ("open", "ConnectionError: no such server", True),
        ("write", "SystemExit: 3", True),
        ("close", "OSError: the disk is full", False),
        ("slow", "it is too slow: 3 entries wait", True),
    ],
)
def test_a_broken_logger_is_named_once_with_its_reason_and_what_was_lost(
    fails: str, reason: str, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        ended, sink = run_with(fails)
    sink.go.set()
    assert ended == "finished"
    said = [record.getMessage() for record in caplog.records if "third party" in record.getMessage()]
    assert said[0].startswith(f"the third party: {reason}")
    assert len(said) == 1 + lost
    if lost:
        assert int(said[1].split(": ")[1].split()[0]) > 0
