"""How long a process waited for a CPU: what Linux counts, against a loop that knows its own wall and CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainkit import cpu_waits
from trainkit.cpu_waits import CpuWaits, is_disturbed

COUNTED = sys.platform == "linux" and os.path.exists("/proc/self/schedstat")


@pytest.fixture
def on_one_cpu() -> Iterator[None]:
    """This thread, and what it starts, on a single CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.skipif(not COUNTED, reason="this system does not count it")
def test_a_wait_is_what_a_busy_loop_lacks_of_its_wall_time(on_one_cpu: None) -> None:
    other = subprocess.Popen(
        [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        # Wall and CPU time are read in such an order that what comes between two readings only widens the bounds.
        outer, outer_cpu = time.perf_counter(), time.thread_time()
        waits = CpuWaits()
        inner_cpu, inner = time.thread_time(), time.perf_counter()
        while time.perf_counter() - inner < 0.4:
            pass
        least = time.perf_counter() - inner
        least -= time.thread_time() - inner_cpu
        waited = waits.lap()
        most_cpu = time.thread_time() - outer_cpu
        most = time.perf_counter() - outer - most_cpu
    finally:
        other.kill()
        other.communicate()
    assert waited is not None
    assert least - 0.02 <= waited <= most + 0.02
    assert least > 0.1
    following = waits.seconds()
    assert following is not None
    assert following < 0.05 or following < waited  # the lap began anew; other tests may use this CPU


def test_a_sleep_is_no_wait() -> None:
    waits = CpuWaits()
    time.sleep(0.3)
    assert (waits.seconds() or 0.0) < 0.3


def test_the_thread_that_waited_longest_counts_and_threads_may_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(**nanoseconds: int) -> None:
        for each in tmp_path.glob("*/schedstat"):
            each.unlink()
        for thread, number in nanoseconds.items():
            (tmp_path / thread).mkdir(exist_ok=True)
            (tmp_path / thread / "schedstat").write_text(f"7 {number} 3\n")

    monkeypatch.setattr(cpu_waits, "_THREADS", tmp_path)
    waited(a=10**9, b=5 * 10**9)
    waits = CpuWaits()
    waited(a=4 * 10**9, b=6 * 10**9)
    assert waits.seconds() == 3.0
    waited(b=6 * 10**9, c=2 * 10**9)
    assert waits.lap() == 2.0
    assert waits.seconds() == 0.0


@pytest.mark.parametrize("content", [None, "0 0 0\n", "not a number\n", ""])
def test_where_it_is_not_counted_nothing_is_known(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_waits, "_THREADS", tmp_path / "task")
    if content is not None:
        (tmp_path / "task" / "1").mkdir(parents=True)
        (tmp_path / "task" / "1" / "schedstat").write_text(content)
    waits = CpuWaits()
    assert (waits.seconds(), waits.lap()) == (None, None)


@pytest.mark.parametrize(
    ("waited", "seconds", "is_so"), [(2.9, 3.0, False), (3.0, 15.0, True), (3.0, 15.1, False), (3.0, 0.0, False)]
)
def test_little_time_or_a_small_share_is_no_disturbance(
    waited: float, seconds: float, is_so: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_waits, "_SECONDS", 3.0)
    assert is_disturbed(waited, seconds) is is_so
