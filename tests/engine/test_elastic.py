"""A run whose processes are killed goes on, in the same folder, with the same bits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from clients import forked_workers
from clients.warm import Warm, WarmProcess
from elastic_sweep import Launch, Sweep


@pytest.mark.slow  # torchrun starts two processes twice
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc")
def test_a_run_of_which_processes_are_killed_ends_like_one_that_was_never_disturbed(tmp_path: Path, warm: Warm) -> None:
    def fork(arguments: list[str], here: Path) -> WarmProcess:
        module, *words = arguments[1:]
        code = ("-c", forked_workers.TORCHRUN) if module == "torch.distributed.run" else ()
        return warm.start(*code, *words, folder=here, out=here / "said.txt")

    said: list[str] = []
    launch = Launch(fork, seconds_of_start=0.3, seconds_of_training=0.3)
    sweep = Sweep(tmp_path, epochs=25, seed=0, say=said.append, launch=launch)
    sweep.straight()
    while sweep.killed < 2 and not said:  # a quick run may end before its second kill
        sweep.one_run(kills=2 - sweep.killed, worlds=[2, 1], restarts=1)
    assert not said
    assert sweep.runs <= 2
