"""Leaves out fsync, for which a small run waits twice as long as for all else."""

from __future__ import annotations

import os

import pytest


def leave_out_fsync(patch: pytest.MonkeyPatch) -> None:
    """Let this process not wait until its files are on the disk.

    No test of this process can tell the difference: only a machine that loses its power can. That files are flushed,
    and in which order, tests hold that count the calls (core/test_files.py, checkpoint/test_checkpoint.py,
    clients/crash_points.py).
    """
    patch.setattr(os, "fsync", lambda descriptor: None)
