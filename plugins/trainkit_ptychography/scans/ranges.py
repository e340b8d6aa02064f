"""Ranges of patterns as a recipe writes them."""

from __future__ import annotations

from typing import Any

import attrs


def as_slice(text: str) -> slice:
    """Return the slice that a text such as "196:" or "0:100:2" stands for.

    Raises:
        ValueError: It is no slice, or its step is not 1 or more.

    Example:
        >>> as_slice("196:"), as_slice(":-3")
        (slice(196, None, None), slice(None, -3, None))
    """
    parts = [part.strip() for part in text.split(":")]
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] is not None and numbers[2] < 1):
        raise ValueError(f'must be a number, or a range such as "196:", "10:20" or "::2", got "{text}"')
    return slice(*numbers)


def numbers_or_ranges(instance: object, attribute: attrs.Attribute[Any], value: tuple[int | str, ...]) -> None:
    """Refuse a setting whose items are neither numbers from 0 up nor ranges."""
    for each in value:
        if isinstance(each, str):
            as_slice(each)
        elif each < 0:
            raise ValueError(f'must be 0 or more, got {each}; "{each}:" is a range that counts from the end')
