"""A run that waits for CPUs says so once, and its record keeps it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from clients.toy_run import TOY, run

from trainkit import cpu_waits
from trainkit.cli.run import report
from trainkit.cli.runs import command as runs
from trainkit.console import Console
from trainkit.engine import build, stopwatch
from trainkit.engine.every_run.busy_cpus import BusyCpus, in_words
from trainkit.engine.start import start
from trainkit.engine.stopwatch import Stopwatch
from trainkit.recipe.resolve import resolve_text
from trainkit.runs.comparison import compare
from trainkit.runs.record import RunRecord
from trainkit.runs.report.page import page


class Clock:
    """Goes on by a hundredth of a second whenever it is read, however busy the machine of the test is."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


CLOCK = Clock()


class Waits:
    """Waits for a share of the time that passes; None: it is not counted."""

    share: float | None = 0.5

    def __init__(self) -> None:
        self._since = CLOCK.now

    def seconds(self) -> float | None:
        return None if self.share is None else self.share * (CLOCK.now - self._since)

    def lap(self) -> float | None:
        seconds, self._since = self.seconds(), CLOCK.now
        return seconds


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Waits]:
    """What the runs of a test wait, of which the shortest time counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cpu_waits, "_SECONDS", 0.0)
    monkeypatch.setattr(Waits, "share", 0.5)
    monkeypatch.setattr(stopwatch, "CpuWaits", Waits)
    monkeypatch.setattr(stopwatch, "perf_counter", CLOCK)
    return Waits


def test_it_is_said_once_and_kept_in_the_record(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = start(resolve_text(TOY, Path.cwd(), ["run.epochs=4"]), Console(), report=report).run.state.folder
    said = capsys.readouterr().out
    assert len(re.findall(r"^warning: this run waits for CPUs: for [45]\d % of the last \d s", said, re.M)) == 1
    assert re.search(r"^time: .*; for [45]\d % of it, other work kept the CPUs from the run$", said, re.M)
    assert len(re.findall(r"; waits for data \d+ %, for a CPU \d\.\d\d s\)", (folder / "log.txt").read_text())) == 4
    known = json.loads((folder / "environment.json").read_text())["starts"][0]["cpu_wait"]
    assert known["seconds"] == pytest.approx(known["of_seconds"] / 2, rel=0.1)
    record = RunRecord(folder)
    assert record.cpu_wait_share == pytest.approx(0.5, rel=0.1)
    words = r"for [45]\d % of it, other work kept the CPUs from the run"
    assert re.search(r"\d s \(" + words + r"\)", page(record))
    listed = CliRunner(env={"COLUMNS": "120"}).invoke(runs, []).stdout
    assert re.search(f"TIME is too long: {words}", listed)
    other = RunRecord(run().run.state.folder)
    notes = "\n".join(compare([record, other]).cautions)
    assert re.search(f"^the time of {record.id} is too long: {words}$", notes, re.M)


def test_programs_get_it_as_objects(capsys: pytest.CaptureFixture[str]) -> None:
    start(resolve_text(TOY, Path.cwd(), ()), Console(as_json=True), report=report)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum("waits for CPUs" in each.get("text", "") for each in said if each["type"] == "message") == 1
    epochs = [each["cpu_wait_seconds"] for each in said if each["type"] == "epoch"]
    assert 0 < sum(epochs) < said[-1]["cpu_wait_seconds"]
    (listed,) = [json.loads(line) for line in CliRunner().invoke(runs, ["--json"]).stdout.splitlines()]
    assert listed["cpu_wait_share"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("share", [0.1, 0.0, None])
def test_a_run_that_has_its_cpus_or_a_system_that_does_not_count_says_nothing(
    share: float | None, waits: type[Waits], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "share", share)
    folder = start(resolve_text(TOY, Path.cwd(), ()), Console(), report=report).run.state.folder
    said = capsys.readouterr().out
    assert "CPUs" not in said
    assert RunRecord(folder).disturbance == ""
    assert ("for a CPU" in (folder / "log.txt").read_text()) is (share is not None)
    assert RunRecord(folder).cpu_wait_share == (None if share is None else pytest.approx(share, rel=0.1))


def test_what_a_gpu_computes_need_not_wait_for_a_cpu() -> None:
    assert Stopwatch().waited_for_cpus() is None
    assert Stopwatch().waited_in_all() is None
    watch = Stopwatch(computes_on_cpu=True)
    CLOCK.now += 5.0
    watch.lap()
    CLOCK.now += 3.0
    assert watch.waited_in_all() == pytest.approx(sum(watch.totals().values()) / 2, abs=0.1)


def test_what_was_long_ago_does_not_hide_what_is_so_now(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_waits, "_SECONDS", 3.0)
    state = run().run.state
    noted: list[tuple[float, ...]] = []
    part, caplog.handler.records[:] = BusyCpus(lambda *given: noted.append(given)), []
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        for waited, seconds in ((0.0, 3600.0), (2.0, 5.0), (0.9, 5.0)):
            state.cpu_wait_seconds, state.seconds = waited, {"steps": seconds}
            part.on_epoch_end(state)
        assert caplog.text == ""
        state.cpu_wait_seconds, state.seconds = 4.0, {"steps": 5.0}
        part.on_epoch_end(state)
    assert "for 46 % of the last 15 s" in caplog.text
    assert noted == [(pytest.approx(6.9), 15.0)]


def test_a_record_that_cannot_be_written_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "note_cpu_wait", fail)
    outcome = run()
    assert outcome.code == 0
    assert outcome.run.state.failures == {"busy_cpus, in on_epoch_end": 1}


@pytest.mark.parametrize(
    ("threads", "cpus", "share", "says"),
    [
        (2, 2, 0.74, "Other work uses them, and its threads wait for each other: run.threads = 1 may"),
        (16, 16, 0.3, "run.threads = 11 may"),
        (16, 16, 0.99, "run.threads = 1 may"),
        (16, 32, 0.01, "run.threads = 15 may"),
        (8, 2, 0.7, "Its 8 threads share 2 CPUs, and wait for each other: run.threads = 2 may"),
        (4, 1, 0.7, "Its 4 threads share 1 CPU, and wait for each other: run.threads = 1 may"),
        (1, 2, 0.5, "the run has one thread already"),
    ],
)
def test_the_number_of_threads_that_is_advised_is_smaller_and_has_cpus(
    threads: int, cpus: int, share: float, says: str
) -> None:
    assert says in in_words(threads, cpus, share)


def test_processes_of_the_same_run_may_be_what_uses_the_cpus() -> None:
    others = "Other work or its other processes use them"
    one = f"{others}; each process has one thread already, so only less of both makes it faster"
    assert in_words(1, 2, 0.5, processes=4) == one
    assert in_words(2, 2, 0.5, processes=2).startswith(
        f"{others}, and its threads wait for each other: run.threads = 1"
    )
