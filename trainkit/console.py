"""Prints the messages of a run on standard output, unless it is quiet, and writes them to the run's ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from trainkit.printable import printable

if TYPE_CHECKING:
    from pathlib import Path


class Console:
    """Prints the messages of a run on standard output, unless it is quiet, and writes them to the run's ``log.txt``.

    Args:
        quiet: Write to ``log.txt`` only.

    Attributes:
        live: The progress bar, while there is one on the terminal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live: Any = None
        self._log: Path | None = None
        self._unkept: list[str] = []
        self._log_failed = False

    @property
    def is_terminal(self) -> bool:
        """Whether a progress bar can be shown."""
        return not self.quiet and sys.stdout.isatty()

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
        if shown:
            self._show(text)

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
                file.write(text + "\n")
        except OSError as error:
            if not self._log_failed:
                self._log_failed = True
                self._show(f"warning: {self._log} cannot be written ({error}); the run goes on")

    def _show(self, text: str) -> None:
        if self.quiet:
            return
        try:
            if self.live is not None:
                self.live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
        except RuntimeError:
            pass  # a signal arrived while Python was writing to the same stream, and this is what its handler says
        except (OSError, ValueError, AttributeError) as error:  # AttributeError: never opened, None
            self.quiet, self.live = True, None
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
