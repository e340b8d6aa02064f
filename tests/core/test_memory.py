"""How much memory is free, against what the system is told to allow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainkit import free_host_memory


def test_free_memory_is_a_plausible_number_of_bytes():
    assert 2**20 < free_host_memory() < 2**60


def test_free_memory_respects_what_a_shell_allows():
    script = (
        "import resource; from pathlib import Path;"
        "from trainkit.memory import free_host_memory, _field;"
        "used = 1024 * _field(Path('/proc/self/status'), 'VmSize:');"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50 * 2**20,) * 2); print(free_host_memory())"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells how much memory a process uses")
    free = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 20 * 2**20 < free <= 50 * 2**20
