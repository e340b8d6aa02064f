"""A table of classes that is written as a line of text, such as "liver=1+2, tumour=2"."""

from __future__ import annotations

import re

from trainkit_segmentation.spelling import IGNORE


def read_class_table(text: str) -> dict[str, tuple[int, ...]]:
    """Return class -> label values, from a line of text.

    Args:
        text: Each class with its value; a class of several values joins them by "+". A class without a value has a mask
            file of its own. The values of "ignore" mark voxels that do not count; no class may have them.

    Raises:
        ValueError: It cannot be read.

    Example:
        >>> read_class_table("liver=1+2, tumour = 2")
        {'liver': (1, 2), 'tumour': (2,)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, equals, values = (each.strip() for each in part.partition("="))
        texts = [each.strip() for each in values.split("+")] if equals else []
        if not name or not all(re.fullmatch(r"-?\d{1,18}", each) for each in texts):
            raise ValueError(f'classes must be written as "liver=1, tumour=2" or "whole=1+2+4, core=1+4", got "{text}"')
        if name in found:
            raise ValueError(f'classes names "{name}" twice')
        found[name] = tuple(dict.fromkeys(map(int, texts)))
        if name != IGNORE and 0 in found[name]:
            raise ValueError(f'classes: "{name}" cannot have the value 0, which is the background')
    if not found.keys() - {IGNORE}:
        raise ValueError("classes names no class")
    if found.get(IGNORE) == ():
        raise ValueError('classes: "ignore" needs a value, for example "ignore=255"')
    for name, numbers in found.items():
        if name != IGNORE and (both := set(numbers) & set(found.get(IGNORE, ()))):
            raise ValueError(f'classes: "{name}" and "ignore" cannot both have the value {min(both)}')
    return found
