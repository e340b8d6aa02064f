"""What the documentation holds that can go stale: blocks of code, commands in the text, links.

Every block names its language. ``sh``, ``python`` and ``toml`` blocks are run, each page in a folder of its own; in a
``console`` block, lines after ``$`` are commands, and the others what they printed; blocks in any other language are
only shown. Two comments before a block, which no reader sees, change that:

- ``<!-- not run: REASON -->``: needs what a test does not have (a GPU, a cluster, the network). It is still read.
- ``<!-- onto RECIPE -->``: the tables are checked as part of this recipe that comes with trainkit; ``<!-- onto RECIPE
  without hooks.truth -->``: as part of the recipe without these keys.

``title="my.toml"`` beside the language writes the block into a file, for the commands that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import attrs
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
RUN = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
"""Pages whose blocks are run: not the reference, which is made from docstrings, nor what contributors read."""

NOTE = re.compile(r"<!-- (not run|onto):? (.*?) -->\s*$")
_TITLE = re.compile(r'title="([^"]*)"')


def named(page: Path) -> str:
    """Return a page as messages name it."""
    return str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page.name)


@attrs.frozen
class Block:
    """A block of code.

    Attributes:
        page: The page that holds it.
        line: Number of its first line in the page.
        language: What stands after the three backticks; "" if nothing does.
        text: Its lines.
        title: The file that it is, or "".
        not_run: Why it is not run, or "".
        onto: The recipe of which it is a part, or "".
        without: Keys of that recipe that do not go with it.
    """

    page: Path
    line: int
    language: str
    text: str
    title: str = ""
    not_run: str = ""
    onto: str = ""
    without: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{named(self.page)}:{self.line}"

    @property
    def padded(self) -> str:
        """Its text behind so many empty lines that line numbers are those of the page."""
        return "\n" * (self.line - 1) + self.text


@attrs.frozen
class Link:
    """A link or a picture.

    Attributes:
        line: Number of the line in the page at which its paragraph begins.
        target: Where it leads to.
        picture: Whether it is a picture.
    """

    line: int
    target: str
    picture: bool


@cache
def tokens(page: Path) -> list[Token]:
    """Return the parts of a page, which is read once."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of code of a page."""
    notes: dict[str, str] = {}
    for token in tokens(page):
        if token.type == "html_block":
            found = NOTE.search(token.content.strip())
            notes = {found[1]: found[2]} if found else {}
        elif token.type == "fence":
            assert token.map
            language, _, rest = token.info.strip().partition(" ")
            title = _TITLE.search(rest)
            onto, _, without = notes.get("onto", "").partition(" without ")
            yield Block(
                page,
                token.map[0] + 2,
                language,
                token.content,
                title[1] if title else "",
                notes.get("not run", ""),
                onto,
                tuple(without.split()),
            )
            notes = {}
        else:
            notes = {}


def commands_in_text(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the commands that stand in sentences and tables, with the line at which their paragraph begins."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("trainkit "):
                assert token.map
                yield token.map[0] + 1, child.content


def links(page: Path) -> Iterator[Link]:
    """Yield the links and pictures of a page."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                assert token.map
                target = child.attrGet("href" if child.type == "link_open" else "src")
                yield Link(token.map[0] + 1, str(target), child.type == "image")


def anchors(page: Path) -> set[str]:
    """Return what a link can say after ``#``, as GitHub makes it of headings."""
    found: set[str] = set()
    parts = tokens(page)
    for token, inline in pairwise(parts):
        if token.type == "heading_open":
            text = "".join(each.content for each in inline.children or () if each.type in ("text", "code_inline"))
            name = plain = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while name in found:
                number += 1
                name = f"{plain}-{number}"
            found.add(name)
    return found
