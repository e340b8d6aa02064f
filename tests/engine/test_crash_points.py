"""Whatever file operation a run is killed before, it goes on as if nothing had happened: some of the points."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[1] / "crash_sweep.py"


@pytest.mark.slow  # some thirty runs
@pytest.mark.skipif(sys.platform != "linux", reason="counts file operations by what /proc tells")
def test_a_run_that_is_killed_before_any_file_operation_ends_as_if_it_never_was(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(SWEEP), "--every", "67", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = [int(number) for number in re.findall(r": (\d+) points, 0 different", done.stdout)]
    assert len(tried) == 5
    assert all(tried)
