"""A run ends before its time limit: early enough for one more step, one validation and one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import run

from trainkit.checkpoint.file import Prepared
from trainkit.engine import stopwatch
from trainkit.engine.every_run import time_limit
from trainkit.engine.start import ExitCode
from trainkit.state import State


@pytest.mark.parametrize(
    ("slow", "last"),
    [
        ("validation_end", 17),  # an epoch takes 4 + 25 s: after four of them and a step, 117 s are over
        ("picture", 17),
        ("epoch_end", 17),
        ("saving", 13),  # after four epochs and a step, no checkpoint could be written any more
    ],
)
def test_the_limit_leaves_time_for_what_follows_an_epoch_whatever_of_it_is_slow(
    slow: str, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def spends(seconds: float) -> Callable[[State], None]:
        def spend(state: State) -> None:
            now[0] += seconds

        return spend

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recorder, "ACTIONS", {"step_end": spends(1.0), slow: spends(25.0)})
    if slow == "saving":
        write = Prepared.write

        def slow_write(prepared: Prepared) -> None:
            now[0] += 25.0
            write(prepared)

        monkeypatch.setattr(Prepared, "write", slow_write)
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time_limit, "process_seconds", lambda: now[0])
    outcome = run("run.epochs=9", "run.time_limit=120s", "pictures.every_epochs=1")
    assert outcome.code is ExitCode.STOPPED
    assert outcome.run.state.step == last
    assert now[0] <= 120
