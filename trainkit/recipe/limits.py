"""The limits of a recipe: how long, how deep and how large it may be.

A recipe may be a slip or come from somebody else. Everything that takes more than linear time in a text's length, or
more memory than the text itself, is bounded here, so that a recipe is read or refused within a second. The limits are
far above what recipes need: the longest that comes with trainkit, with all defaults written out, has about 5 kB.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from trainkit.files.reading import read_small

LONGEST_TEXT = 1_000_000
"""Characters of a recipe, and of all strings that its references expand to; bytes of its file."""

LONGEST_WORD = 200
"""Characters of a key, or of a number."""

DEEPEST = 32
"""Tables and lists within each other, and the parts of a dotted key."""

MOST_FILES = 100
"""Recipes that one recipe extends, directly and indirectly."""

MOST_VALUES = 100_000
"""Values that the references of a recipe expand to, with all values within them."""

MOST_MISTAKES = 100
"""Mistakes of a recipe that are shown."""

WHOLE_NUMBERS = range(-(2**63), 2**63)
"""The whole numbers that TOML has."""

_TOKEN = re.compile(
    r'''(?P<string>"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'''
    r"""|'''.*?(?:'{3,5}|\Z)"""
    r"""|"(?:\\.|[^"\\\n])*"?"""
    r"""|'[^'\n]*'?)"""
    r"""|(?P<comment>\#[^\n]*)|(?P<word>[^\s\#"'\[\]{},.=]+)|(?P<dot>\.)|(?P<open>[\[{])|(?P<close>[\]}])"""
    r"""|(?P<blank>[ \t]+)|(?P<other>.|\n)""",
    re.DOTALL,
)


class Excess(NamedTuple):
    """The place of a text that passes a limit.

    Attributes:
        message: Which limit.
        begin: Offset of the place.
        end: Offset of its end.
    """

    message: str
    begin: int
    end: int


def excess(text: str) -> Excess | None:
    """Return where a TOML text passes a limit; None if it passes none. It takes linear time, for any text."""
    if len(text) > LONGEST_TEXT:
        return Excess(f"has {len(text)} characters, and a recipe may have {LONGEST_TEXT}", 0, 0)
    depth = parts = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "word" and token.end() - token.start() > LONGEST_WORD:
            length = token.end() - token.start()
            return Excess(f"a word of {length} characters; a key or a number may have {LONGEST_WORD}", *token.span())
        if kind == "dot":
            parts += 1
        elif kind == "open":
            depth, parts = depth + 1, 0
        elif kind == "close":
            depth, parts = max(depth - 1, 0), 0
        elif kind not in ("word", "string", "blank"):
            parts = 0
        if depth > DEEPEST or parts >= DEEPEST:
            return Excess(f"nested too deeply: at most {DEEPEST} tables and lists within each other", *token.span())
    return None


def read_file(path: Path) -> str:
    """Return the text of a recipe file.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
        ValueError: It is no regular file, is too large, or its name is not possible.
    """
    return read_small(path, "a recipe", LONGEST_TEXT).decode("utf-8")
