"""Checks of settings that name channels and label values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from trainkit_segmentation.spelling import IGNORE


def each_once(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    """Refuse an empty list of names, or a name that is there twice."""
    if value is None:
        return
    twice = sorted({name for name in value if value.count(name) > 1})
    if not value or twice:
        what = f"; twice: {', '.join(twice)}" if twice else ""
        raise ValueError(f"{attribute.name} must name at least one, each once{what}")


def each_value_once(instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, int] | None) -> None:
    """Refuse label values of which none is a class, or two names for one value."""
    if value is None:
        return
    if not {name for name, number in value.items() if number != 0 and name != IGNORE}:
        raise ValueError(f"{attribute.name} must name at least one label value other than 0, got {dict(value)}")
    by_value: dict[int, str] = {}
    for name, number in value.items():
        other = by_value.setdefault(number, name)
        if other != name:
            raise ValueError(f"{attribute.name} has two names for the value {number}: {other} and {name}")
