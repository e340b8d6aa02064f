"""Prints what commands say. All output of the command line goes through here, except that of a run (`Console`).

Names come from files that somebody else may have written, so text is made safe for a terminal before it is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from trainkit.printable import printable

if TYPE_CHECKING:
    from trainkit.contracts import Progress


class Styled(str):
    """Text that is safe for a terminal already, and may hold codes for colours."""

    __slots__ = ()


def styled(text: str, **style: Any) -> Styled:
    """Return a text with colours, as `click.style` has them."""
    return Styled(click.style(printable(text), **style))


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


def show_progress(progress: Progress) -> None:
    """Show a progress on the terminal, in a line that the next one replaces."""
    if sys.stderr.isatty():
        echo(_LINE_BEGINS, f"{progress.done} of {progress.total} {progress.what}", nl=False, err=True)


def clear_progress() -> None:
    """Remove the line of `show_progress`."""
    if sys.stderr.isatty():
        echo(_LINE_BEGINS, nl=False, err=True)


_LINE_BEGINS = Styled("\r\033[K")  # back to the beginning of an empty line
