"""Leaves out fsync, for which a small run waits twice as long as for all else."""

from __future__ import annotations

import os
import sqlite3.dbapi2
from typing import Any

import pytest


def leave_out_fsync(patch: pytest.MonkeyPatch) -> None:
    """Let this process not wait until its files are on the disk.

    No test of this process can tell the difference: only a machine that loses its power can. That files are flushed,
    and in which order, tests hold that count the calls (core/test_files.py, checkpoint/test_checkpoint.py,
    clients/crash_points.py).
    """
    patch.setattr(os, "fsync", lambda descriptor: None)
    connect = sqlite3.dbapi2.connect

    def connect_without_fsync(*args: Any, **options: Any) -> sqlite3.dbapi2.Connection:
        """SQLite waits for the disk at each commit, which MLflow and Optuna make a hundred of in a small run."""
        connection = connect(*args, **options)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    patch.setattr(sqlite3.dbapi2, "connect", connect_without_fsync)
