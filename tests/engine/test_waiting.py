"""A run tells how long its steps waited for data, and what can be done about it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from clients.toy import Line, LiveLine
from clients.toy_run import TOY, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainkit import Context, component
from trainkit.engine.every_run import waiting


class SlowLine(LiveLine):
    def batch(self, *place: int) -> Any:
        sleep(0.02)
        return super().batch(*place)


@component
class Slow(Line):
    """Points that take their time."""

    def against_waiting(self, context: Context) -> str | None:
        return f"set data.quick = true on {context.device}"

    def build(self, context: Context) -> SlowLine:
        return SlowLine(context.seed, self.batch_size)


SLOW = TOY.replace("clients.toy:Line", "engine.test_waiting:Slow") + '[loggers.tensorboard]\nuse = "tensorboard"\n'


@pytest.mark.parametrize(("seconds", "says"), [(0.05, True), (10.0, False)])
def test_the_share_is_in_every_epochs_line_and_chart_and_at_the_end_with_advice_if_time_was_lost(
    seconds: float,
    says: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "_SECONDS", seconds)
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        folder = run(text=SLOW).run.state.folder
    told = re.findall(r"steps ([\d.]+), data ([\d.]+),.*; waits for data (\d+) %", (folder / "log.txt").read_text())
    events = EventAccumulator(str(folder / "tensorboard" / "train")).Reload()
    drawn = [event.value for event in events.Scalars("time/share_of_waiting_for_data")]
    assert len(told) == len(drawn) == 2
    for (steps, data, percent), share in zip(told, drawn, strict=True):
        assert float(data) >= 0.08
        assert share == pytest.approx(float(data) / (float(data) + float(steps)), abs=0.1)  # the line has hundredths
        assert abs(float(percent) - 100 * share) <= 0.5
    sentence = r"steps waited for data for .* % of their time \(.* s\); set data\.quick = true on cpu"
    assert bool(re.search(sentence, caplog.text)) is says


def test_a_run_whose_data_is_there_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "_SHARE", 0.999)
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        run()
    assert "waited for data" not in caplog.text
