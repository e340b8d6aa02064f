"""Builds HTML in which all text is escaped: what is no `Markup` is text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from trainkit.printable import printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as HTML in which it stands as it is, without characters that are invisible or turn text round."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value)), quote=True))


def tag(element: str, /, *content: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        element: Its name.
        content: What is in it: text or `Markup`.
        attributes: Its attributes; "_" stands for "-", a "_" at the end is left out, and None leaves one out.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{text(value)}"' for key, value in given.items())
    inside = "".join(map(text, content))
    return Markup(f"<{element}{written}>{inside}</{element}>" if element not in _EMPTY else f"<{element}{written}>")


_EMPTY = ("img", "input", "meta", "br")


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Return several parts as one."""
    return Markup(text(between).join(map(text, parts)))


def table(head: Iterable[object], rows: Iterable[Iterable[object]], class_: str | None = None) -> Markup:
    """Return a table, which scrolls by itself on a narrow screen."""
    top = tag("thead", tag("tr", *(tag("th", each, scope="col") for each in head)))
    body = tag("tbody", *(tag("tr", *(tag("td", each) for each in row)) for row in rows))
    return tag("div", tag("table", top, body, class_=class_), class_="scrolls")
