import platform
import resource
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from trainkit.loading.workers import Workers

_STEPS = """
import os, resource
if {keep}:
    from trainkit.freed_memory import keep_freed_memory
    keep_freed_memory()
import numpy as np

def step():  # makes arrays of a few MB, and frees all of them
    arrays = [np.ones({numbers}) for _ in range(8)]
    return sum(array[0] for array in arrays)

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(keep: bool, megabytes: int = 4, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _STEPS.format(keep=keep, numbers=megabytes * 2**17)],
        env={"PYTHONPATH": ":".join(sys.path), "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@needs_glibc
@pytest.mark.parametrize("megabytes", [4, 48])  # the C library has other ways for arrays above 32 MiB
def test_arrays_of_later_steps_lie_in_the_memory_of_earlier_ones(megabytes: int) -> None:
    pages = 5 * 8 * megabytes * 2**20 // 4096  # of all arrays of all steps
    assert _page_faults(False, megabytes) > pages / 4
    assert _page_faults(True, megabytes) < pages / 100


@needs_glibc
def test_what_a_user_sets_for_the_c_library_stays() -> None:
    assert _page_faults(True, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="33554432") > 250


class _Counting:
    """Makes arrays of 4 MB for each batch, and tells the page faults of its process."""

    def __getitem__(self, place: int) -> dict[str, Any]:
        arrays = [np.ones(2**19) for _ in range(8)]
        assert all(array[0] == 1 for array in arrays)
        return {"index": torch.tensor([place]), "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt}


@needs_glibc
def test_workers_keep_the_memory_of_one_batch_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_MADVISE_HUGEPAGE", "0")
    workers = Workers(_Counting(), 1, pin=False)
    try:
        faults = [batch["faults"] for batch in workers(range(16))]
    finally:
        workers.end()
    pages = 8 * 8 * 4 * 2**20 // 4096  # of all arrays of the last eight batches
    assert faults[-1] - faults[-9] < pages / 100
