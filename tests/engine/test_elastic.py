"""A run whose processes are killed goes on, in the same folder, with the same bits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[1] / "elastic_sweep.py"


@pytest.mark.slow  # torchrun starts two processes twice
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc")
def test_a_run_of_which_processes_are_killed_ends_like_one_that_was_never_disturbed(tmp_path: Path) -> None:
    how = ["--kills", "2", "--restarts", "1", "--worlds", "2,1", "--epochs", "25", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, str(SWEEP), *how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^2 kills .* in [12] runs, 0 different", done.stdout, re.MULTILINE)
