"""Prints the messages of a run on standard output, unless it is quiet, and writes them to the run's ``log.txt``.

On standard output they are lines for people, or objects of JSON for programs. In the log, each line has a clock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainkit.json_lines import json_line
from trainkit.live_line import LiveLine
from trainkit.printable import printable

if TYPE_CHECKING:
    from pathlib import Path


_NARROWEST = 20


class Console:
    """Prints the messages of a run on standard output, unless it is quiet, and writes them to the run's ``log.txt``.

    Args:
        quiet: Write to ``log.txt`` only, apart from doubts.
        as_json: Print objects of JSON, one a line.

    Attributes:
        live: The line that is kept up to date below all others, while there is one.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.live: LiveLine | None = None
        self._log: Path | None = None
        self._unkept: list[str] = []
        self._log_failed = False

    @property
    def can_be_live(self) -> bool:
        """Whether a line can be written anew in its place: on a terminal that knows how to."""
        is_read_by_people = not self.quiet and not self.as_json and sys.stdout is not None and sys.stdout.isatty()
        return is_read_by_people and os.environ.get("TERM", "dumb") != "dumb"

    @property
    def width(self) -> int:
        """Columns of the terminal; where there is none, 80, or what the environment variable ``COLUMNS`` says."""
        return max(shutil.get_terminal_size().columns, _NARROWEST)

    def begin_live(self) -> None:
        """Begin the live line, if there can be one."""
        if self.live is None and self.can_be_live:
            self.live = LiveLine(sys.stdout, lambda: self.width)
            self.live.__enter__()

    def end_live(self) -> None:
        """Remove the live line."""
        if self.live is not None:
            live, self.live = self.live, None
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                live.__exit__(None, None, None)

    def log_to(self, path: Path | None) -> None:
        """Write all messages to a file too.

        Args:
            path: The file; None: messages are kept for the file of the next call.
        """
        self._log = path
        if path is not None:
            unkept, self._unkept = self._unkept, []
            for text in unkept:
                self._keep(text)

    @contextlib.contextmanager
    def capture_logging(self) -> Iterator[None]:
        """Also show and keep messages to Python's logger "trainkit", from level INFO up."""
        logger, handler = logging.getLogger("trainkit"), _ConsoleHandler(self.say)
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def say(self, text: str, *, shown: bool = True) -> None:
        """Print a message and write it to the log, without characters that a terminal obeys and without secrets.

        Args:
            text: The message.
            shown: Whether to print it; otherwise it is only in the log.
        """
        text = printable(text)
        self._keep(text)
        if shown and (text or not self.as_json):
            self._show(json_line("message", {"text": text}) if self.as_json else text)

    def doubt(self, text: str) -> None:
        """Say why a result is doubtful, see `doubt_in_quiet`."""
        self.say(f"doubtful: {text}")
        self.doubt_in_quiet(text)

    def doubt_in_quiet(self, text: str) -> None:
        """Print on standard error why a result is doubtful, if the console is quiet: the exit code is not 0."""
        if self.quiet and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"doubtful: {printable(text)}\n")

    def tell(self, type_: str, facts: Mapping[str, Any], *lines: str, shown: str | None = None) -> None:
        """Print what has both a form for people and one for programs, and write the one for people to the log.

        Args:
            type_: What it is about, for programs.
            facts: The keys and values for programs, see `json_line`.
            lines: The lines for people.
            shown: What to print for people instead; None: the lines.
        """
        text = printable("\n".join(lines))
        self._keep(text)
        if self.as_json:
            self._show(json_line(type_, facts))
        elif lines:
            self._show(text if shown is None else printable(shown))

    def sync(self) -> None:
        """Bring what was written to the log to the disk."""
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("rb") as file:
                os.fsync(file.fileno())

    def _keep(self, text: str) -> None:
        if self._log is None:
            self._unkept.append(text)
            return
        try:
            with self._log.open("a", encoding="utf-8") as file:
                clock = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
                file.write("".join(f"{clock}  {line}".rstrip() + "\n" for line in text.split("\n")))
        except OSError as error:
            if not self._log_failed:
                self._log_failed = True
                self._show(f"warning: {self._log} cannot be written ({error}); the run goes on")

    def _show(self, text: str) -> None:
        if self.quiet:
            return
        try:
            if self.live is not None:
                self.live.print_above(text)
            else:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
        except RuntimeError:
            pass  # a signal arrived while Python was writing to the same stream, and this is what its handler says
        except (OSError, ValueError, AttributeError) as error:  # AttributeError: never opened, None
            self.quiet = True
            self.end_live()
            discard_output()
            if not isinstance(error, BrokenPipeError):  # then the reader, for example `head`, has seen enough
                self._keep(f"warning: standard output cannot be written ({error}); the run goes on without it")


def discard_output() -> None:
    """Send what is written on standard output from now on nowhere, so that nothing fails when it is flushed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConsoleHandler(logging.Handler):
    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._say(prefix + record.getMessage())
        if record.exc_info:
            self._say("".join(traceback.format_exception(*record.exc_info)).rstrip(), shown=False)
