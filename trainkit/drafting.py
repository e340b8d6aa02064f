"""Writes a recipe with a comment at each value that says why: for planners (``trainkit init``)."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_COLUMN = 34  # at which comments begin, where the value is short
_WIDTH = 120
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class RecipeText:
    """The text of a recipe, written from top to bottom.

    Example:
        >>> text = RecipeText()
        >>> text.table("optimizer")
        >>> text.value("use", "sgd")
        >>> text.value("lr", 0.01, "as in nnU-Net")
        >>> print(text)
        [optimizer]
        use = "sgd"
        lr = 0.01                         # as in nnU-Net
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.placeholders: dict[str, str] = {}
        """Keys that the user has to fill in -> with what."""

    def comment(self, text: str) -> None:
        """Add a comment, on lines of its own."""
        self._lines += [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]

    def listing(self, lines: Iterable[str]) -> None:
        """Add lines as a comment, as they are: a table of figures."""
        self._lines += [f"#   {line}".rstrip() for line in lines]

    def table(self, name: str, why: str = "") -> None:
        """Begin a table, for example "data.preprocessing"; "": the top of the recipe, before any table."""
        if self._lines and name:
            self._lines.append("")
        if name:
            self._add(f"[{'.'.join(_key(part) for part in name.split('.'))}]", why)

    def value(self, key: str, value: Any, why: str = "") -> None:
        """Add a value: text, a number, true or false, a path, a list, or a table."""
        self._add(f"{_key(key)} = {toml(value)}", why)

    def as_written(self, key: str, text: str, why: str = "") -> None:
        """Add a value that is TOML already, for example "1e6"."""
        self._add(f"{_key(key)} = {text}", why)

    def placeholder(self, key: str, example: str, why: str) -> None:
        """Add a line that the user has to fill in: the recipe is refused until then."""
        self.placeholders[key] = example
        self._add(f'{_key(key)} = "<{example}>"', why)

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def _add(self, line: str, why: str) -> None:
        why = " ".join(why.split())
        padded = f"{line:<{_COLUMN - 1}} # {why}"
        if not why:
            self._lines.append(line)
        elif len(padded) <= _WIDTH:
            self._lines.append(padded)
        else:
            self.comment(why)
            self._lines.append(line)


def toml(value: Any) -> str:
    """Return a value as TOML, on one line.

    Example:
        >>> toml({"use": "fraction", "axes": (0, 1), "dir": Path("a/b")})
        '{ use = "fraction", axes = [0, 1], dir = "a/b" }'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(str(key))} = {toml(each)}" for key, each in value.items())
        return f"{{ {items} }}" if items else "{}"
    return f"[{', '.join(map(toml, value))}]"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else toml(key)
