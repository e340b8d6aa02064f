"""Lengths that Fourier transforms are fast for."""

from __future__ import annotations

_FACTORS = (2, 3, 5, 7, 11)


def fast_length(least: int) -> int:
    """Return the smallest length from ``least`` up that has no prime factor above 11.

    ``scipy.fft.next_fast_len`` returns the same, and its import takes 0.1 s of the start of every run.

    Example:
        >>> fast_length(29), fast_length(30)
        (30, 30)
    """
    length = max(least, 1)
    while not _is_fast(length):
        length += 1
    return length


def _is_fast(length: int) -> bool:
    for factor in _FACTORS:
        while length % factor == 0:
            length //= factor
    return length == 1
