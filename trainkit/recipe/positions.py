"""Finds the position of each key and value in a TOML text.

No TOML reader gives the position of a key, so a small scanner reads the text a second time. The scanner expects valid
TOML, because tomli has read the text before, and it looks at the structure of the text, not at the values.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import tomli

Where = tuple[str | int, ...]
"""A place in a recipe: ("groups", "probe", "lr"). A number is an index into a list."""

Span = tuple[int, int]
"""Offset of the first character, and of the character after the last one."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}'''  # up to two quotes may stand right before the three that close
    r"""|'''.*?'{3,5}"""
    r'''|"(?:\\.|[^"\\])*"'''
    r"""|'[^']*'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]+|[^\s,\]}#]+")


class Spans(NamedTuple):
    """The positions of a key and of its value. Of a list's item, both are the value; of a table's header, the name."""

    key: Span
    value: Span


def positions(text: str) -> dict[Where, Spans]:
    """Return the position of every key, table and list item of a valid TOML text whose lines end in LF."""
    return _Scanner(text).document()


def dotted_key(text: str) -> tuple[tuple[str, ...], int] | None:
    """Read the dotted key at the beginning of a text.

    Returns:
        The parts of the key and the offset of its end; None if the text does not begin with a key.

    Example:
        >>> dotted_key("groups.probe.lr = 3")
        (('groups', 'probe', 'lr'), 15)
    """
    scanner = _Scanner(text)
    try:
        parts = scanner.key()
    except ValueError:
        return None
    return tuple(name for name, _ in parts), scanner.offset


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.found: dict[Where, Spans] = {}
        self.tables_in: dict[Where, int] = {}  # array of tables -> index of its last table

    def document(self) -> dict[Where, Spans]:
        table: Where = ()
        self.skip(_BLANK)
        while self.offset < len(self.text):
            if self.text[self.offset] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)
        return self.found

    def header(self) -> Where:
        brackets = 2 if self.text.startswith("[[", self.offset) else 1
        self.offset += brackets
        self.skip(_BLANK)
        *outer, (name, span) = self.key()
        self.skip(_BLANK)
        self.offset += brackets
        where: Where = ()
        for each, each_span in outer:
            where += (each,)
            self.found.setdefault(where, Spans(each_span, each_span))
            if where in self.tables_in:
                where += (self.tables_in[where],)
        where += (name,)
        if brackets == 1:
            self.found[where] = Spans(span, span)
            return where
        self.found.setdefault(where, Spans(span, span))
        self.tables_in[where] = self.tables_in.get(where, -1) + 1
        where += (self.tables_in[where],)
        self.found[where] = Spans(span, span)
        return where

    def pair(self, table: Where) -> None:
        where = table
        span = (0, 0)
        for name, span in self.key():
            where += (name,)
            self.found.setdefault(where, Spans(span, span))
        self.skip(_BLANK)
        self.offset += 1  # the equals sign
        self.value(where, span)

    def key(self) -> list[tuple[str, Span]]:
        parts = []
        while True:
            token = _KEY.match(self.text, self.offset)
            if token is None:
                raise ValueError(f"no key at offset {self.offset}")
            name = token[0] if token[0][0] not in "\"'" else tomli.loads(f"key = {token[0]}")["key"]
            parts.append((name, token.span()))
            self.offset = token.end()
            dot = _DOT.match(self.text, self.offset)
            if dot is None:
                return parts
            self.offset = dot.end()

    def value(self, where: Where, key: Span | None) -> None:
        self.skip(_BLANK)
        start = self.offset
        opening = self.text[start]
        if opening in "[{":
            self.offset += 1
            index = 0
            while (char := self.next_in_brackets()) not in "]}":
                if char == ",":
                    self.offset += 1
                elif opening == "{":
                    self.pair(where)
                else:
                    self.value((*where, index), None)
                    index += 1
            self.offset += 1
        else:
            self.skip(_STRING if opening in "\"'" else _SCALAR)
        span = (start, self.offset)
        self.found[where] = Spans(key or span, span)

    def next_in_brackets(self) -> str:
        self.skip(_BLANK)
        return self.text[self.offset]

    def skip(self, pattern: re.Pattern[str]) -> None:
        token = pattern.match(self.text, self.offset)
        if token is None:
            raise ValueError(f"unexpected text at offset {self.offset}")
        self.offset = token.end()
