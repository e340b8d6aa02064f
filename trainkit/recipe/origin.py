"""Where a value is from, and how a place in a recipe is written."""

from __future__ import annotations

import re

import attrs

from trainkit.recipe.positions import Where

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Mark:
    """A piece of a line of a file.

    Attributes:
        line: Its line, counted from 1.
        column: Its first character's column, counted from 1.
        width: How many characters of it stand on that line.
        text: The whole line.
    """

    line: int
    column: int
    width: int
    text: str


@attrs.frozen
class Origin:
    """Where a value is from.

    Attributes:
        source: The file as a person knows it, or "--set a.b=c", or "default".
        key: Where the key stands; None for what is not from a file.
        value: Where the value stands.
    """

    source: str
    key: Mark | None = None
    value: Mark | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.key.line}" if self.key else self.source


DEFAULT = Origin("default")


def dotted(where: Where) -> str:
    """Return a place as a person writes it.

    Example:
        >>> dotted(("model", "my key", "layers", 0))
        'model."my key".layers[0]'
    """
    written = ""
    for part in where:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            written += ("." if written else "") + (part if _BARE.fullmatch(part) else f'"{part}"')
    return written
