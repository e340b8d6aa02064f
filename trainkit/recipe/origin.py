"""The origin of a value, and the notation of a place in a recipe."""

from __future__ import annotations

import re

import attrs

from trainkit.recipe.positions import Where

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Mark:
    """A part of a line of a file.

    Attributes:
        line: Number of the line, from 1.
        column: Column of the first character, from 1.
        width: Number of characters on that line.
        text: The whole line.
    """

    line: int
    column: int
    width: int
    text: str


@attrs.frozen
class Origin:
    """Where a value comes from.

    Attributes:
        source: The file as the user named it, or "--set a.b=c", or "default".
        key: The position of the key; None if the value does not come from a file.
        value: The position of the value.
        text: How a value of ``--set`` was written.
    """

    source: str
    key: Mark | None = None
    value: Mark | None = None
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.key.line}" if self.key else self.source


DEFAULT = Origin("default")


def dotted(where: Where) -> str:
    """Return a place as a dotted key.

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
