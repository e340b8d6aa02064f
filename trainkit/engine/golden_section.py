"""Searches a positive number at which a costly, slightly noisy value is lowest: golden section on a logarithmic scale.

The number 0 is tried first. Then both ends of a range and a point between them, in the golden ratio:

    0      low ─────── middle ─────────── high       on a logarithmic scale
            └── 0.38 ──┘└───── 0.62 ──────┘

While an end is the best, the range is widened beyond it. Once a point between two others is the best, the larger of the
two intervals beside it is divided in the golden ratio, again and again: each new point shortens the stretch in which
the lowest value lies to 0.62 of what it was.

Source: Kiefer, Proceedings of the American Mathematical Society 4 (1953) 502.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping

_GOLDEN = (3 - math.sqrt(5)) / 2  # 0.38


def search(low: float, high: float, tries: int) -> Generator[float, float, dict[float, float]]:
    """Yield numbers to try, each of which is answered with its value; return number -> value, in the order tried.

    Args:
        low: The smallest number to begin with, > 0.
        high: The largest number to begin with.
        tries: How many numbers are tried at most, the 0 and the first three among them.

    Example:
        >>> searching = search(0.01, 1.0, tries=6)
        >>> number = next(searching)
        >>> try:
        ...     while True:
        ...         number = searching.send((math.log10(number) + 1) ** 2 if number else 9.0)
        ... except StopIteration as end:
        ...     list(end.value)
        [0.0, 0.01, 0.0581, 1.0, 0.172, 0.337]
    """
    known: dict[float, float] = {}
    for number in (0.0, _rounded(low), _between(low, high, _GOLDEN), _rounded(high)):
        known[number] = yield number
    while len(known) < tries and (new := _next(known)) is not None and new not in known:
        known[new] = yield new
    return known


def best_of(known: Mapping[float, float]) -> float:
    """Return the number with the lowest value; of several, the first that was tried, so 0 if it is among them."""
    return min(known, key=lambda number: known[number])


def is_at_end(known: Mapping[float, float]) -> bool:
    """Return whether the best number is the smallest or the largest one that was tried, and not 0."""
    return best_of(known) in (_smallest(known), max(known))


def _next(known: Mapping[float, float]) -> float | None:
    """Return the number to try next; None: there is none that could be better than 0."""
    numbers = sorted(number for number in known if number > 0)
    at = numbers.index(min(numbers, key=lambda number: known[number]))
    best = numbers[at]
    if at == 0:
        return None if known[0.0] <= known[best] else _between(best, numbers[1], -1.0)
    if at == len(numbers) - 1:
        return _between(best, numbers[at - 1], -1.0)
    below, above = numbers[at - 1], numbers[at + 1]
    larger = above if above / best > best / below else below
    return _between(best, larger, _GOLDEN)


def _smallest(known: Mapping[float, float]) -> float:
    """Return the smallest number that was tried, apart from 0."""
    return min(number for number in known if number > 0)


def _between(start: float, end: float, part: float) -> float:
    """Return the number at a part of the way between two on a logarithmic scale; -1: as far on the other side."""
    return _rounded(start * (end / start) ** part)


def _rounded(number: float) -> float:
    """Return a number as short as messages show it, so that what is shown is what was tried."""
    return float(f"{number:.3g}")
