"""Numbers of voxels along the three axes."""

from __future__ import annotations

from typing import Any

import attrs

Size = tuple[int, int, int]


def at_least_one(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse a setting, a tuple of numbers or of sizes or None, in which there is a number below 1."""
    numbers = [n for each in value or () for n in (each if isinstance(each, tuple) else (each,))]
    if min(numbers, default=1) < 1:
        raise ValueError(f"{attribute.name} must be at least 1 each, got {list(value)}")
