"""Prints what commands say. All output of the command line goes through here, except that of a run (`Console`).

Names come from files that somebody else may have written, so text is made safe for a terminal before it is printed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

import click

from trainkit.json_lines import json_line
from trainkit.printable import printable

if TYPE_CHECKING:
    from trainkit.contracts import Progress


class Styled(str):
    """Text that is safe for a terminal already, and may hold codes for colours."""

    __slots__ = ()


def styled(text: str, **style: Any) -> Styled:
    """Return a text with colours, as `click.style` has them; without them if the user has set ``NO_COLOR``."""
    return Styled(printable(text) if os.environ.get("NO_COLOR") else click.style(printable(text), **style))


def joined(parts: Iterable[str], between: str = "") -> Styled:
    """Return texts as one; those that are not `Styled` are made safe."""
    return Styled(between.join(each if isinstance(each, Styled) else printable(each) for each in parts))


def echo(*parts: str, nl: bool = True, err: bool = False) -> None:
    """Print texts, one after the other; those that are not `Styled` are made safe.

    Args:
        parts: The texts.
        nl: Whether a new line follows.
        err: Print on standard error instead of standard output.
    """
    click.echo(joined(parts), nl=nl, err=err)


def fitted(text: str) -> str:
    """Return a text with lines that are too wide for the terminal broken between words; elsewhere, the text as it is.

    Lines that are set in columns stay as they are.
    """
    return "\n".join(each for line in text.split("\n") for each in _broken(line))


def echo_list(rows: Mapping[str, str]) -> None:
    """Print names and what is said of each beside them: in a line each, or on a terminal in as many as it takes."""
    width = max(map(len, rows), default=0) + 2
    for name, said in rows.items():
        lines = _wrapped(said, " " * width)
        echo(f"{name:{width}}{lines[0][width:]}", *(f"\n{line}" for line in lines[1:]))


def _broken(line: str) -> list[str]:
    words = line.strip()
    return [line] if "  " in words else _wrapped(words, line[: len(line) - len(line.lstrip())])


def _wrapped(words: str, indent: str) -> list[str]:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    text = TextWrapper(
        max(columns, len(indent) + 30),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.wrap(words) or [indent.rstrip()]


def let_output_through() -> None:
    """Print on standard output itself from now on, whatever has taken its place."""
    sys.stdout = sys.__stdout__


def echo_json(type_: str, **fields: Any) -> None:
    """Print one JSON object in a line of its own, and hand it to the reader at once.

    What objects there are is documented in ``docs/json.md``: names stay as they are, and new ones may be added.

    Args:
        type_: What the object is about, for example "epoch".
        fields: Its other keys, with values of JSON, paths, or iterables of such values.
    """
    click.echo(json_line(type_, fields))
    sys.stdout.flush()


def show_progress(progress: Progress) -> None:
    """Show a progress on the terminal, in a line that the next one replaces."""
    if sys.stderr.isatty():
        echo(_LINE_BEGINS, f"{progress.done} of {progress.total} {progress.what}", nl=False, err=True)


def clear_progress() -> None:
    """Remove the line of `show_progress`."""
    if sys.stderr.isatty():
        echo(_LINE_BEGINS, nl=False, err=True)


_LINE_BEGINS = Styled("\r\033[K")  # back to the beginning of an empty line
