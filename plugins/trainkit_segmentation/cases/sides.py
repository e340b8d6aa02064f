"""Recognises pairs of classes that differ only in their side."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIDES = (("left", "right"), ("l", "r"), ("lh", "rh"), ("lt", "rt"), ("sin", "dex"), ("sinister", "dexter"))
_OTHER = {side: other for pair in _SIDES for side, other in (pair, pair[::-1])}


def sided_pairs(classes: Iterable[str]) -> list[tuple[str, str]]:
    """Return the classes whose names are equal but for one word that means left or right.

    Example:
        >>> sided_pairs(["kidney_left", "liver", "Kidney_Right", "rh.cortex", "lh.cortex"])
        [('kidney_left', 'Kidney_Right'), ('rh.cortex', 'lh.cortex')]
    """
    names = list(classes)
    by_words = {_words(name): name for name in names}
    pairs = []
    for name in names:
        words = _words(name)
        for place, word in enumerate(words):
            other = by_words.get((*words[:place], _OTHER[word], *words[place + 1 :])) if word in _OTHER else None
            if other is not None and names.index(other) > names.index(name):
                pairs.append((name, other))
    return pairs


def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)  # kidneyLeft
    return tuple(re.findall(r"[^\W_]+", spaced.lower()))
