"""Lets this process keep the memory that it frees, for the arrays of the next step.

Each step of a training on a CPU makes and frees the same large arrays. By default, the C library of Linux returns those
above 32 MiB to the system at once, and the end of its heap as soon as there is twice as much as the largest of the
others. The next step asks for it again, and the system fills each page with zeros: a fifth of a step's time for a 3D
network, a third for four probe modes, three quarters for an object of 3,000² pixels.

Source:
    The manual of the GNU C Library, "Malloc Tunable Parameters".
"""

from __future__ import annotations

import os
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in malloc.h
_KEPT = 2**30  # bytes at the end of the heap from which memory is returned
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory, unless the user decides about it or the C library is another one.

    Call it when what stays has been made: what is freed before is returned as usual.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    import ctypes

    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_MAX, 0)  # all arrays lie in the heap
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
