"""How many workers a planned recipe has: as many as the machine has CPUs and memory for."""

from __future__ import annotations

import pytest

from trainkit_segmentation.planning import worker_count as module
from trainkit_segmentation.planning.worker_count import worker_count

GB, MB = 10**9, 10**6


@pytest.mark.parametrize(
    ("cpus", "free", "batch", "number", "why"),
    [
        (1, 64 * GB, MB, 0, "this machine has one CPU"),
        (2, 64 * GB, MB, 1, "of 2 CPUs here, one trains"),
        (6, 64 * GB, MB, 5, "of 6 CPUs here, one trains"),
        (9, 64 * GB, MB, 8, "of 9 CPUs here, one trains"),
        (64, 64 * GB, MB, 8, "8 are enough; this machine has 64 CPUs"),
        (16, 4 * GB, 100 * MB, 3, "more do not fit in half of the free memory"),  # 2 GB, and .6 GB for each
        (16, GB // 2, 100 * MB, 0, "more do not fit in half of the free memory"),
    ],
)
def test_workers_are_as_many_as_the_machine_can_keep_busy(
    monkeypatch: pytest.MonkeyPatch, cpus: int, free: int, batch: int, number: int, why: str
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(module, "free_host_memory", lambda: free)
    found, reason = worker_count(batch)
    assert found == number
    assert why in reason
    assert reason.startswith("processes that prepare batches" if number else "the training prepares batches itself")
