"""Finds the range of a setting that is a number, by asking its validator.

A validator is a function, attrs' own or anybody's. It cannot be read, but it can be called. It is asked about numbers
from far below zero to far above it, and each bound is then found by bisection. A bound is stated only if all numbers
that are tried beyond it are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import attrs
from attrs.validators import deep_iterable, ge, in_, optional

_NUMBERS = (0, 1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 45, 50, 64, 90, 100, 128, 180, 256, 360, 500, 1000, 1024, 10_000)
_LARGE = (10**5, 10**6, 10**7, 10**9, 2**31, 10**12, 10**15)
_FRACTIONS = (1e-30, 1e-12, 1e-6, 1e-3, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.5, 2.5)

_OPTIONAL: Any = type(optional(ge(0)))
_ALL: Any = type(attrs.validators.and_())
_ONE_OF: Any = type(in_(()))
_ITEMS: Any = type(deep_iterable(ge(0)))


class Range(NamedTuple):
    """Which numbers a setting takes; None: there is no such bound.

    Attributes:
        least: The smallest number.
        above: The largest number that is too small.
        most: The largest number.
        below: The smallest number that is too large.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    @property
    def in_words(self) -> str:
        """The bounds, for example "> 0 and ≤ 1"; empty if there are none."""
        signs = zip(("≥", ">", "≤", "<"), self, strict=True)
        return " and ".join(f"{sign} {bound:g}" for sign, bound in signs if bound is not None)


NO_RANGE = Range()


def range_of(field: attrs.Attribute[Any], whole: bool) -> Range:
    """Return the range of a setting that is a number.

    Args:
        field: The setting.
        whole: Whether only whole numbers are meant.
    """
    if field.validator is None:
        return NO_RANGE
    return _asked_about(field.validator, field, whole)


def range_of_items(field: attrs.Attribute[Any], whole: bool) -> Range:
    """Return the range of the numbers in a list, if a validator `attrs.validators.deep_iterable` states it."""
    for each in _parts(field.validator):
        if isinstance(each, _ITEMS):
            return _asked_about(each.member_validator, field, whole)
    return NO_RANGE


def choices_of(field: attrs.Attribute[Any]) -> tuple[Any, ...] | None:
    """Return the values that a setting can have, if a validator `attrs.validators.in_` states them."""
    for each in _parts(field.validator):
        if isinstance(each, _ONE_OF) and isinstance(each.options, tuple | list):
            return tuple(each.options)
    return None


def _parts(validator: Any) -> Iterator[Any]:
    """Yield the validators that all have to pass."""
    if isinstance(validator, _OPTIONAL):
        yield from _parts(validator.validator)
    elif isinstance(validator, _ALL):
        for each in validator._validators:
            yield from _parts(each)
    elif isinstance(validator, list | tuple):
        for each in validator:
            yield from _parts(each)
    elif validator is not None:
        yield validator


def _asked_about(validator: Any, field: attrs.Attribute[Any], whole: bool) -> Range:
    least, most = NO_RANGE, NO_RANGE
    for each in _parts(validator):
        try:
            found = _cached(each, whole)
        except TypeError:  # it cannot be hashed
            found = _found(each, field, whole)
        least = found if _low(found) > _low(least) else least
        most = found if _high(found) < _high(most) else most
    return Range(least.least, least.above, most.most, most.below)


def _low(found: Range) -> tuple[float, bool]:
    """Return the lower bound, and whether it is left out."""
    if found.least is not None:
        return found.least, False
    return (-math.inf if found.above is None else found.above), True


def _high(found: Range) -> tuple[float, bool]:
    """Return the upper bound, and whether it belongs to the range."""
    if found.most is not None:
        return found.most, True
    return (math.inf if found.below is None else found.below), False


@attrs.define
class _Named:
    """Stands for the field in a validator's own message."""

    name: str = "it"


@cache
def _cached(validator: Callable[..., Any], whole: bool) -> Range:
    return _found(validator, _Named(), whole)


def _found(validator: Callable[..., Any], field: Any, whole: bool) -> Range:
    positive = sorted({*_NUMBERS, *_LARGE, *(() if whole else _FRACTIONS)})
    numbers = [*(-each for each in reversed(positive[1:])), *positive]
    numbers = numbers if whole else [float(each) for each in numbers]

    def takes(number: float) -> bool:
        try:
            validator(None, field, number)
        except (ValueError, TypeError):
            return False
        return True

    try:
        taken = [takes(each) for each in numbers]
        if not any(taken) or all(taken):
            return NO_RANGE
        first, last = taken.index(True), len(taken) - 1 - taken[::-1].index(True)
        low = _bound(takes, numbers[first], numbers[first - 1], whole) if first else None
        high = _bound(takes, numbers[last], numbers[last + 1], whole) if last + 1 < len(numbers) else None
    except Exception:  # it looks at the other settings, or at something else that a number does not have
        return NO_RANGE
    least, above = low or (None, None)
    most, below = high or (None, None)
    return Range(least, above, most, below)


def _bound(
    takes: Callable[[float], bool], inside: float, outside: float, whole: bool
) -> tuple[float, None] | tuple[None, float]:
    """Return the last number that is taken, or the first one that is not, whichever is rounder."""
    if whole:
        while abs(inside - outside) > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if takes(middle) else (inside, middle)
        return inside, None
    if takes(math.nextafter(outside, inside)):
        return None, outside
    if not takes(math.nextafter(inside, outside)):
        return inside, None
    while math.nextafter(inside, outside) != outside:
        middle = inside + (outside - inside) / 2
        if middle in (inside, outside):
            break
        inside, outside = (middle, outside) if takes(middle) else (inside, middle)
    return (inside, None) if len(repr(inside)) <= len(repr(outside)) else (None, outside)
