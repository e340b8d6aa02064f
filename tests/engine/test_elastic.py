"""A run whose processes are killed goes on, in the same folder, with the same bits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from elastic_sweep import Sweep

from trainkit.engine.every_run import progress_chart


@pytest.mark.slow  # torchrun starts two processes twice
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc")
def test_a_run_of_which_processes_are_killed_ends_like_one_that_was_never_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_chart, "draw", lambda state, curves: (state.folder / "progress.png").touch())
    said: list[str] = []
    sweep = Sweep(tmp_path, epochs=25, seed=0, say=said.append)
    sweep.straight()
    while sweep.killed < 2 and not said:  # a quick run may end before its second kill
        sweep.one_run(kills=2 - sweep.killed, worlds=[2, 1], restarts=1)
    assert not said
    assert sweep.runs <= 2
