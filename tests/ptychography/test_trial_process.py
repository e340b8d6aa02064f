"""What could take this process down is tried in another one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from trainkit import DataError
from trainkit_ptychography.scans.files import hdf5_live, matlab_live
from trainkit_ptychography.scans.files.hdf5_live import HDF5File
from trainkit_ptychography.scans.files.matlab_live import MATFile
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


def test_whatever_is_read_of_a_file_is_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["dp"] = np.ones(3)
    scipy.io.savemat(tmp_path / "scan.mat", {"dp": np.ones(3)})
    actions: list[Callable[[], object]] = []

    def tried(action: Callable[[], object], cpu_seconds: float) -> bool:
        actions.append(action)
        return len(actions) != fails

    reads = (
        (hdf5_live, lambda: HDF5File(tmp_path / "scan.h5", "data.path").array("dp")),
        (matlab_live, lambda: MATFile(tmp_path / "scan.mat").array("dp")),
    )
    for fails in (1, 2):  # what opens the file, and what reads an array
        for module, read in reads:
            monkeypatch.setattr(module, "survives", tried)
            actions.clear()
            with pytest.raises(DataError, match="is damaged, or made to do harm"):
                read()
            assert len(actions) == fails
