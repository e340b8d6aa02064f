"""A line at the bottom of a terminal that is written anew in its place, while lasting lines appear above it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any, TextIO

from trainkit.printable import printable

if TYPE_CHECKING:
    from types import TracebackType

_BEGIN = "\r\x1b[J"  # to the beginning of the line; clear from there to the end of the screen


class LiveLine:
    """The line. While it is shown, what Python code prints on the terminal appears above it.

    The cursor waits at the beginning of the line. If the terminal is made narrower and breaks the line in two, it is
    still there, so clearing from the cursor on removes both halves.

    Args:
        stream: The terminal.
        width: Returns its present number of columns.

    Attributes:
        text: What the line says when it is written the next time.
    """

    def __init__(self, stream: TextIO, width: Callable[[], int]) -> None:
        self._stream, self._width = stream, width
        self.text = ""
        self._lock = RLock()
        self._replaced: dict[str, Any] = {}

    def __enter__(self) -> LiveLine:
        """Let what is printed on standard output and standard error appear above the line."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self._replaced[name] = stream
                setattr(sys, name, _Above(self, stream))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the line, and give the streams back."""
        for name, stream in self._replaced.items():
            above = getattr(sys, name)
            if isinstance(above, _Above):
                above.finish()
            setattr(sys, name, stream)
        self._replaced.clear()
        self.show("")

    def show(self, text: str) -> None:
        """Show another text, made safe, and cut to the width of the terminal; "": none."""
        with self._lock:
            if text == self.text == "":
                return
            self.text = printable(text).replace("\n", " ").replace("\t", " ")
            self._stream.write(_BEGIN + self._cut())
            self._stream.flush()

    def print_above(self, text: str) -> None:
        """Print a lasting line, or several, above the line."""
        with self._lock:
            self._stream.write(f"{_BEGIN}{text}\n{self._cut()}")
            self._stream.flush()

    def _cut(self) -> str:
        width = self._width() - 1  # a full line would make some terminals begin the next one
        text = self.text if len(self.text) <= width else self.text[: max(width - 1, 0)] + "…"
        return text + "\r" if text else ""


class _Above:
    """Stands in for a stream: prints whole lines above a live line."""

    def __init__(self, line: LiveLine, stream: TextIO) -> None:
        self._line, self._stream, self._kept = line, stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        *lines, self._kept = (self._kept + text).split("\n")
        if lines:
            self._line.print_above("\n".join(lines))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        if self._kept:
            self._line.print_above(self._kept)
            self._kept = ""
