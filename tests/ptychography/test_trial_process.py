"""What could take this process down is tried in another one."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from trainkit_ptychography.scans.files.trial_process import survives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no safe fork")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def never_end() -> None:
    while True:
        pass


def fail() -> None:
    raise ValueError("this is said by who tries it again")


def test_a_crash_and_a_loop_without_end_are_seen_and_an_error_is_an_end():
    assert not survives(crash, 5.0)
    assert not survives(never_end, 0.1)
    assert survives(fail, 5.0)
    assert survives(lambda: None, 5.0)
