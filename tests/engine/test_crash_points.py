"""Whatever file operation a run is killed before, it goes on as if nothing had happened: some of the points."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from clients.warm import Warm


@pytest.mark.slow  # some thirty runs
@pytest.mark.skipif(sys.platform != "linux", reason="counts file operations by what /proc tells")
def test_a_run_that_is_killed_before_any_file_operation_ends_as_if_it_never_was(tmp_path: Path, warm: Warm) -> None:
    sweep = warm.start(
        *("-c", "import crash_sweep; crash_sweep.main()", "--every", "67", "--folder", "swept"), folder=tmp_path
    )
    assert sweep.wait(600) == 0, sweep.stdout
    tried = [int(number) for number in re.findall(r": (\d+) points, 0 different", sweep.stdout)]
    assert len(tried) == 5
    assert all(tried)
