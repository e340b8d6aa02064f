"""Shows the progress of a prediction: a line for each input, and on a terminal how far the present one is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from trainkit.console import Console
    from trainkit.contracts import Progress

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 60.0


class PredictionProgress:
    """Prints a line when an input is finished. On a terminal, a live line shows how far the present one is.

    Args:
        console: Prints the lines and holds the live line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._place = ""
        self._next = 0.0

    def __enter__(self) -> PredictionProgress:
        """Begin the live line, on a terminal."""
        self._console.begin_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the live line."""
        self._console.end_live()

    def begin(self, number: int, total: int, name: str) -> None:
        """Show that an input begins."""
        self._place = f"[{number}/{total}] {name}"
        self._next = time.perf_counter() + (0.0 if self._console.live else _PLAIN_SECONDS)
        if self._console.live is not None:
            self._console.live.show(self._place)

    def within(self, progress: Progress) -> None:
        """Show how far the present input is, from time to time."""
        now = time.perf_counter()
        if now < self._next:
            return
        live = self._console.live
        self._next = now + (_REFRESH_SECONDS if live else _PLAIN_SECONDS)
        text = f"{self._place}: {progress.done} of {progress.total} {progress.what}"
        if live is None:
            self._console.say(text)
        else:
            live.show(text)

    def end(self, what: str, seconds: float | None) -> None:
        """Print what came of the present input."""
        took = "" if seconds is None else f"  ({seconds:.1f} s)"
        self._console.say(f"{self._place}: {what}{took}")
