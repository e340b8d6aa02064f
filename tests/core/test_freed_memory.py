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
    from trainkit.freed_memory import keep_freed_memory, keep_large_arrays
    keep_freed_memory()
    keep_large_arrays({large})
import numpy as np

def step():  # makes arrays of a few MB, and frees all of them
    arrays = [np.ones({numbers}) for _ in range(8)]
    return sum(array[0] for array in arrays)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _printed(code: str, **environment: str) -> int:
    environment = {"PYTHONPATH": ":".join(sys.path), "NUMPY_MADVISE_HUGEPAGE": "0", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _page_faults(keep: bool, megabytes: int = 4, large: bool = True, **environment: str) -> int:
    return _printed(_STEPS.format(keep=keep, large=large, numbers=megabytes * 2**17), **environment)


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@needs_glibc
@pytest.mark.parametrize("megabytes", [4, 36])  # the C library has other ways for arrays above 32 MiB
def test_arrays_of_later_steps_lie_in_the_memory_of_earlier_ones(megabytes: int) -> None:
    pages = 2 * 8 * megabytes * 2**20 // 4096  # of all arrays of all steps
    assert _page_faults(False, megabytes) > pages / 4
    assert _page_faults(True, megabytes) < pages / 100


@needs_glibc
def test_only_arrays_up_to_32_mib_are_kept_between_other_things_than_steps() -> None:
    assert _page_faults(True, 4, large=False) < 2 * 8 * 4 * 2**20 // 4096 / 100
    assert _page_faults(True, 36, large=False) > 2 * 8 * 36 * 2**20 // 4096 / 4


_VOLUMES = """
import random
from trainkit.freed_memory import keep_freed_memory, keep_large_arrays
import numpy as np

def heap():  # bytes of address space that this process has asked for as its heap
    lines = [line.split()[0].split("-") for line in open("/proc/self/maps") if line.endswith("[heap]\\n")]
    return sum(int(last, 16) - int(first, 16) for first, last in lines)

random.seed(0)
keep_freed_memory()
kept = []
for epoch in range(4):
    keep_large_arrays(True)
    for _ in range(5):  # steps: the same sizes again and again
        step = [np.empty(2**17 * megabytes) for megabytes in (8, 40, 80, 40)]
        kept.append(np.empty(random.randint(1, 2**14)))
        del step
    keep_large_arrays({volumes_too})
    for _ in range(20):  # whole volumes, each of another size, and something small that stays of each
        volume = [np.empty(2**17 * n) for n in (random.randint(40, 220), random.randint(120, 660))]
        kept.append(np.empty(random.randint(1, 2**14)))
        volume.append(np.empty(2**17 * random.randint(40, 220)))
        kept.append(np.empty(random.randint(1, 2**14)))
        del volume
print(heap() // 2**20)
"""


@needs_glibc
def test_whole_volumes_of_ever_other_sizes_do_not_make_the_heap_grow() -> None:
    assert _printed(_VOLUMES.format(volumes_too=True)) > 1000
    assert _printed(_VOLUMES.format(volumes_too=False)) < 300


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
