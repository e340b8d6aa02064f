"""Prints the messages of a run on standard output, unless it is quiet, and writes them to the run's ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

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
        """Print a message and write it to the log.

        Args:
            text: The message.
            shown: Whether to print it; otherwise it is only in the log.
        """
        self._keep(text)
        if shown:
            self._show(text)

    def _keep(self, text: str) -> None:
        if self._log is None:
            self._unkept.append(text)
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _show(self, text: str) -> None:
        if self.quiet:
            return
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the program that read our output has ended; the run continues, and log.txt is whole
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConsoleHandler(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._say(prefix + record.getMessage())
