"""Lets this process keep the memory that it frees, for the arrays of the next step.

Each step of a training on a CPU makes and frees the same large arrays. By default, the C library of Linux returns
memory at the end of its heap to the system as soon as there is twice as much as the largest array. The next step asks
for it again, and the system fills each page with zeros: that can be a third of a step's time.

Source:
    The manual of the GNU C Library, "Malloc Tunable Parameters".
"""

from __future__ import annotations

import os
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
_KEPT = 2**30  # bytes at the end of the heap from which memory is returned
_IN_HEAP = 2**25  # bytes up to which an array lies in the heap; the library takes no larger number
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory, unless the user decides about it or the C library is another one."""
    if any(name in os.environ for name in _VARIABLES):
        return
    import ctypes

    # Both: one of them alone would end the library's own adaptation, and leave the other at its small beginning.
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _IN_HEAP)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
