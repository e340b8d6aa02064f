"""Shows the progress of a prediction: a bar on a terminal, a line for each input elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainkit.printable import printable

if TYPE_CHECKING:
    from types import TracebackType

    from trainkit.console import Console
    from trainkit.contracts import Progress

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 60.0


class PredictionProgress:
    """Prints a line when an input is finished. On a terminal, a bar shows how far the present one is.

    Args:
        console: Prints the lines and holds the bar.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: Any = None
        self._place = ""
        self._next = 0.0

    def __enter__(self) -> PredictionProgress:
        """Open the bar, on a terminal."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            what = TextColumn("{task.description}", markup=False)
            bar = Bar(what, BarColumn(bar_width=20), TimeRemainingColumn(), auto_refresh=False, transient=True)
            self._task = bar.add_task("", total=None)
            bar.start()
            self._console.live = bar
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        if self._console.live is not None:
            self._console.live.stop()
            self._console.live = None

    def begin(self, number: int, total: int, name: str) -> None:
        """Show that an input begins."""
        self._place = f"[{number}/{total}] {name}"
        self._next = time.perf_counter() + (0.0 if self._console.live else _PLAIN_SECONDS)
        if self._console.live is not None:
            self._console.live.reset(self._task, total=None, description=printable(self._place))
            self._console.live.refresh()

    def within(self, progress: Progress) -> None:
        """Show how far the present input is, from time to time."""
        now = time.perf_counter()
        if now < self._next:
            return
        live = self._console.live
        self._next = now + (_REFRESH_SECONDS if live else _PLAIN_SECONDS)
        if live is None:
            self._console.say(f"{self._place}: {progress.done} of {progress.total} {progress.what}")
        else:
            live.update(self._task, total=progress.total, completed=progress.done)
            live.refresh()

    def end(self, what: str, seconds: float | None) -> None:
        """Print what came of the present input."""
        took = "" if seconds is None else f"  ({seconds:.1f} s)"
        self._console.say(f"{self._place}: {what}{took}")
