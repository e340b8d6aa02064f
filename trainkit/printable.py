"""Makes text safe to show: on a terminal, in ``log.txt``, in an error message.

Names come from files that somebody else may have written: a checkpoint's versions, a group, a dataset in an HDF5 file.
A terminal obeys some characters in them. It moves the cursor, changes colours or the title, hides text, makes links,
or shows text from right to left. `printable` writes all of these as the escapes that TOML, JSON and Python have.
Values of environment variables that a recipe reads as strings, such as keys of a service, are replaced by their names.
"""

from __future__ import annotations

import re

_SHORTEST_SECRET = 6
"""Characters of the shortest value that is hidden; to replace shorter ones would garble other text."""

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 without tab and line feed
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, line breaks, direction
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of surrogate pairs; tags
)
_hidden: dict[str, str] = {}
_short: dict[str, str] = {}
_MOST_SHORT = 64  # of the paths in it: each costs time in every text


def printable(text: str) -> str:
    r"""Return a text without characters that a terminal obeys, apart from tab and line feed, and without secrets.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\u001b[2Jb'
    """
    for value, name in (*_hidden.items(), *_short.items()):
        text = text.replace(value, name)
    return without_controls(text)


def without_controls(text: str) -> str:
    """Return a text with escapes for all characters that a terminal obeys, apart from tab and line feed."""
    return _OBEYED.sub(_escape, text)


def hide(secret: str, name: str) -> None:
    """Replace a value in all text that is shown from now on.

    Args:
        secret: The value. One of less than 6 characters is not replaced.
        name: What is shown instead.
    """
    if len(secret) >= _SHORTEST_SECRET:
        _hidden[secret] = name


def show_as(folder: str, short: str) -> None:
    """Show the path of a folder, and those of files in it, in a shorter form in all text from now on.

    Args:
        folder: The path.
        short: What is shown instead.
    """
    _short[folder] = short
    if len(_short) > _MOST_SHORT:
        del _short[next(iter(_short))]


def _escape(character: re.Match[str]) -> str:
    code = ord(character[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
