"""Leaves out that a run tells whether other programs keep it from the CPUs: beside other tests, they do."""

from __future__ import annotations

import math

import pytest

from trainkit import cpu_waits


def leave_out_busy_cpus(patch: pytest.MonkeyPatch) -> None:
    """Let runs of this process find no wait for a CPU worth a word, however busy the machine of the tests is.

    What they say otherwise has tests of its own (core/test_cpu_waits.py, engine/test_busy_cpus.py).
    """
    patch.setattr(cpu_waits, "_SECONDS", math.inf)
