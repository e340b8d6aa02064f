"""A table of classes that is written as a line of text, such as "liver=1+2, tumour=2"."""

from __future__ import annotations

import re

from trainkit_segmentation.spelling import IGNORE


def read_class_table(text: str) -> dict[str, tuple[int | str, ...]]:
    """Return class -> label values or names of masks, from a line of text.

    Args:
        text: Each class with its value; a class of several values joins them by "+". A class without a value has a mask
            of its own, and names of masks in place of values are joined in the same way. The values or masks of
            "ignore" mark voxels that do not count; no class may have them.

    Raises:
        ValueError: It cannot be read.

    Example:
        >>> read_class_table("liver=1+2, tumour = 2")
        {'liver': (1, 2), 'tumour': (2,)}
        >>> read_class_table("lungs=lung_left+lung_right, ignore=unsure")
        {'lungs': ('lung_left', 'lung_right'), 'ignore': ('unsure',)}
    """
    found: dict[str, tuple[int | str, ...]] = {}
    for part in text.split(","):
        name, equals, values = (each.strip() for each in part.partition("="))
        texts = [each.strip() for each in values.split("+")] if equals else []
        are_values = all(re.fullmatch(r"-?\d{1,18}", each) for each in texts)
        are_masks = all(re.match(r"[^\W\d]", each) for each in texts)
        if not name or not (are_values or are_masks):
            raise ValueError(f'classes must be written as "liver=1, tumour=2" or "whole=1+2+4, core=1+4", got "{text}"')
        if name in found:
            raise ValueError(f'classes names "{name}" twice')
        found[name] = tuple(dict.fromkeys(map(int, texts) if are_values else texts))
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
