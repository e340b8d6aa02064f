"""Where a run speaks: standard output unless it is quiet, and the run's ``log.txt``."""

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
    """Where a run speaks: standard output unless it is quiet, and the run's ``log.txt``.

    Args:
        quiet: Write to ``log.txt`` alone.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live: Any = None
        self._log: Path | None = None
        self._unkept: list[str] = []

    @property
    def is_terminal(self) -> bool:
        """Whether a live line makes sense."""
        return not self.quiet and sys.stdout.isatty()

    def log_to(self, path: Path | None) -> None:
        """Keep everything that is said in a file too; None: in the next file that will be named."""
        self._log = path
        if path is not None:
            unkept, self._unkept = self._unkept, []
            for text in unkept:
                self._keep(text)

    @contextlib.contextmanager
    def capture_logging(self) -> Iterator[None]:
        """Say what a run's parts tell Python's logger "trainkit" too, from level INFO up."""
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
        """Say a line.

        Args:
            text: The line.
            shown: False: in the log alone.
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
        except BrokenPipeError:  # whoever read along has gone; the training goes on, and log.txt has it all
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConsoleHandler(logging.Handler):
    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._told(prefix + record.getMessage())
