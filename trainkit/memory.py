"""Finds out how much memory this process can still allocate within all limits that apply to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 2**60


def free_host_memory() -> int:
    """Return how many bytes this process can still allocate: the lowest limit of machine, container and ulimit."""
    return max(0, min(_limits(), default=_UNLIMITED))


def _limits() -> Iterator[int]:
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    if free is not None:
        yield free * 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS reports only the installed memory
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for group in (Path("/sys/fs/cgroup"), *_own_groups()):
        most, now = _number(group / "memory.max"), _number(group / "memory.current")
        if most is not None and now is not None:
            yield most - now
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most, taken = resource.getrlimit(limit)[0], _field(Path("/proc/self/status"), used)
        if most != resource.RLIM_INFINITY and taken is not None:
            yield most - taken * 1024


def _own_groups() -> Iterator[Path]:
    """Yield the control groups (version 2) that this process is in, the innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):
            inner = Path("/sys/fs/cgroup") / line.removeprefix("0::/")
            while inner != Path("/sys/fs/cgroup"):
                yield inner
                inner = inner.parent


def _field(path: Path, name: str) -> int | None:
    """Return a number in kB from a file with lines of the form "name: number kB"."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
