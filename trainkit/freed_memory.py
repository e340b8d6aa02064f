"""Lets this process keep the memory that it frees, for the arrays of the next step.

Each step of a training on a CPU makes and frees the same large arrays. By default, the C library of Linux returns those
above 32 MiB to the system at once, and the end of its heap as soon as there is twice as much as the largest of the
others. The next step asks for it again, and the system fills each page with zeros: a fifth of a step's time for a 3D
network, a third for four probe modes, three quarters for an object of 3,000² pixels.

The memory of arrays above 32 MiB is kept only while steps follow each other. Other work, for example the evaluation of
whole volumes, makes large arrays of different sizes, and leaves holes in the heap: it would grow without end.

Source:
    The manual of the GNU C Library, "Malloc Tunable Parameters".
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # M_TRIM_THRESHOLD, … in malloc.h
_KEPT = 2**30  # bytes at the end of the heap from which memory is returned
_LARGE = 2**25  # bytes of the largest array that can be told to lie in the heap
_MANY = 2**16  # arrays that may lie outside of the heap: the library's default
_MUCH = 2**28  # free bytes of the heap that are returned when something else begins
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory, unless the user decides about it or the C library is another one.

    Call it when what stays has been made: what is freed before is returned as usual. Arrays above 32 MiB are not kept.
    """
    if (library := _library()) is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


def keep_large_arrays(keep: bool) -> None:
    """Keep the memory of arrays above 32 MiB as well, or no longer; then much free memory is returned.

    Args:
        keep: Whether what follows makes arrays of the same sizes again and again.
    """
    if (library := _library()) is None:
        return
    library.mallopt(_MMAP_MAX, 0 if keep else _MANY)
    if not keep and hasattr(library, "mallinfo2") and library.mallinfo2().free > _MUCH:
        library.malloc_trim(0)


@cache
def _library() -> Any:
    """Return the GNU C library; None: it is another one, or the user decides about its memory."""
    import ctypes

    if os.name != "posix" or any(name in os.environ for name in _VARIABLES):
        return None
    library: Any = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return None

    class MemoryInfo(ctypes.Structure):
        """What ``mallinfo2`` returns; the manual's "Statistics for Memory Allocation with malloc"."""

        _fields_ = [(name, ctypes.c_size_t) for name in (*(f"other_{number}" for number in range(8)), "free", "top")]

    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = MemoryInfo
    return library
