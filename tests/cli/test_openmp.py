"""Threads that wait for each other give up their CPUs sooner, unless the user decides about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from trainkit.cli import openmp
from trainkit.cpus import usable_cpus

LOADED_AFTER = """
import ctypes, sys
from trainkit.cli.openmp import spin_less
spin_less()
ctypes.CDLL(sys.argv[1])
"""


def spins(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, cpus: int = 2) -> str | None:
    """Return GOMP_SPINCOUNT after a start with some variables on a machine with so many CPUs."""
    with monkeypatch.context() as patch:
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(openmp, "usable_cpus", lambda: cpus)
        openmp.spin_less()
        return os.environ.pop("GOMP_SPINCOUNT", None)


def test_it_is_set_on_few_cpus_unless_the_user_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert spins({}, monkeypatch) == "10000"
    assert spins({"OMP_NUM_THREADS": "2"}, monkeypatch) == "10000"
    assert spins({"GOMP_SPINCOUNT": "7"}, monkeypatch) == "7"
    assert spins({"OMP_WAIT_POLICY": "ACTIVE"}, monkeypatch) is None
    assert spins({}, monkeypatch, cpus=64) is None
    monkeypatch.setitem(sys.modules, "torch", pytest)
    assert spins({}, monkeypatch) is None


def test_the_library_that_torch_loads_later_reads_it() -> None:
    found = find_spec("torch")
    assert found is not None
    folders = [Path(each) for each in found.submodule_search_locations or ()]
    libraries = [
        path for each in folders for path in (*each.glob("lib/libgomp*"), *each.glob("../torch.libs/libgomp*"))
    ]
    if not libraries or usable_cpus() > 4:
        pytest.skip("this torch has no libgomp of its own, or the machine has many CPUs")
    known = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    shown = subprocess.run(
        [sys.executable, "-c", LOADED_AFTER, str(libraries[0])],
        env=known | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "GOMP_SPINCOUNT = '10000'" in shown
