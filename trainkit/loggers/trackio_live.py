"""A run of trackio."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import matplotlib.figure  # noqa: F401  (trackio's thread looks into it, and skips values while another one imports it)
import numpy as np

from trainkit.loggers.sink import Sink, Start

if TYPE_CHECKING:
    from trainkit.loggers.recorder import Place
    from trainkit.loggers.trackio import Trackio


class TrackioRun(Sink):
    """A run in the local database of trackio, which is continued if the run is.

    Args:
        settings: The settings.
    """

    name = "trackio"

    def __init__(self, settings: Trackio) -> None:
        self._settings = settings
        self._newest = 0  # the step of the last entry
        self._last: dict[str, int] = {}  # value -> the last step at which an earlier start wrote it
        self._rows = 0  # that the database has to hold in the end

    def open(self, start: Start) -> None:
        """Find the run of trackio, or make it."""
        import trackio  # in the thread: it takes long
        from trackio.sqlite_storage import SQLiteStorage

        self._trackio: Any = trackio
        about, project = start.about, self._settings.project or start.name
        storage: Any = SQLiteStorage
        self._rows_in_database: Callable[[], int] = lambda: storage.get_log_count(project, about.id)
        known = about.id in storage.get_runs(project)
        self._rows = self._rows_in_database() if known else 0
        for row in storage.get_logs(project, about.id) if known else ():
            for name in row.keys() - {"step", "timestamp"}:
                self._last[name] = max(self._last.get(name, -1), row["step"])
        config = {name: value if _is_plain(value) else str(value) for name, value in about.settings.items()}
        with _without_prints():
            self._run: Any = trackio.init(
                project=project,
                name=about.id,
                config=config | ({"trainkit.parent": about.parent} if about.parent else {}),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Write the values that are not there yet."""
        self._log({name: value if math.isfinite(value) else str(value) for name, value in values.items()}, place)

    def write_picture(self, name: str, image_HWC: np.ndarray[Any, Any], place: Place) -> None:
        """Write a picture."""
        if self._settings.pictures:
            self._log({f"pictures/{name}": self._trackio.Image(image_HWC)}, place)

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Write a text."""
        self._log({name: self._trackio.Markdown(markdown)}, place)

    def close(self, ended: str) -> None:
        """Say how the run ended, wait until everything is in the database, and see whether it is.

        Raises:
            OSError: It is not: trackio itself only warns.
        """
        with _without_prints():
            self._run.log({"trainkit.ended": ended}, step=self._newest)
            self._run.finish()
        elsewhere = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        if not elsewhere and (found := self._rows_in_database()) < self._rows + 1:
            raise OSError(f"{self._rows + 1 - found} of the entries are not in its database")

    def _log(self, values: Mapping[str, Any], place: Place) -> None:
        prefix = "step/" if place.by == "step" else ""
        named = {prefix + name: value for name, value in values.items()}
        new = {name: value for name, value in named.items() if place.at > self._last.get(name, -1)}
        if new:
            self._rows += 1
            self._newest = place.at
            with _without_prints():
                self._run.log(new, step=place.at)


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) or value is None


class _WithoutThread:
    """A stream without what one thread writes to it."""

    def __init__(self, stream: TextIO, thread: int) -> None:
        self._stream, self._thread = stream, thread

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _without_prints() -> Iterator[None]:
    """Drop what this thread prints: trackio talks on standard output, where a run may write JSON."""
    with contextlib.redirect_stdout(_WithoutThread(sys.stdout, threading.get_ident())):
        yield
