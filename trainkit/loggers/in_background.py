"""Writes what a run logs in a thread with a bounded queue, so that nothing slow or broken holds the run up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from trainkit.loggers.recorder import Place, Recorder
from trainkit.loggers.sink import Sink, Start

if TYPE_CHECKING:
    import numpy as np

    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")


class InBackground(Recorder):
    """The live part of a logger that writes to a `Sink` in a thread of its own.

    What the run logs is put into a queue, which never waits. If the queue is full, or the sink fails, what cannot be
    written is lost; this is said once, and at the run's end with the number of values.

    Args:
        sink: What is written to.
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
        capacity: How many entries wait at most: the values of an epoch or of a step, a text, or a picture.
        end_seconds: How long the run's end waits until everything is written.
    """

    def __init__(
        self,
        sink: Sink,
        every_steps: int = 50,
        gradient_norm_every_steps: int = 10,
        *,
        capacity: int = 1000,
        end_seconds: float = 60.0,
    ) -> None:
        super().__init__(every_steps, gradient_norm_every_steps)
        self._sink = sink
        self._queue: queue.Queue[tuple[Callable[[], None], int] | None] = queue.Queue(capacity)
        self._end_seconds = end_seconds
        self._thread: threading.Thread | None = None
        self._lost = 0  # in the thread
        self._refused = 0  # before it
        self._is_open = False
        self._trouble: str | None = None
        self._is_said = False

    def begin(self, state: State) -> None:
        """Start the thread, which opens the sink."""
        start = Start(state.about, state.folder.parent.name, state.folder, state.epoch, state.step)
        self._thread = threading.Thread(target=self._work, args=(start,), name=self._sink.name, daemon=True)
        self._thread.start()

    def write_values(self, values: Mapping[str, float], place: Place) -> None:
        """Put values into the queue, as numbers of Python."""
        numbers = {name: float(value) for name, value in values.items()}
        self._put(partial(self._sink.write, numbers, place), len(numbers))

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Put a text into the queue."""
        self._put(partial(self._sink.write_text, name, markdown, place), 1)

    def write_pictures(
        self,
        pictures: Mapping[str, np.ndarray[Any, Any]],
        ranks: Mapping[str, int],
        place: Place,
        *,
        of_end: bool = False,
    ) -> None:
        """Put pictures into the queue, the best first."""
        for name, image_HWC in sorted(pictures.items(), key=lambda each: ranks.get(each[0], 50)):
            self._put(partial(self._sink.write_picture, name, image_HWC.copy(), place), 1)

    def flush(self, state: State) -> None:
        """Have the sink flushed, and wait for it if it is quick."""
        done = threading.Event()

        def flush() -> None:
            self._sink.flush()
            done.set()

        self._put(flush, 0)
        if self._sink.wait_seconds and self._trouble is None:
            until = time.monotonic() + self._sink.wait_seconds
            while not done.wait(0.01) and self._trouble is None and time.monotonic() < until:
                pass

    def close(self, state: State) -> None:
        """Have the sink closed, wait for the thread, and say what was lost."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        for entry in ((partial(self._sink.close, state.ended), 0), None):
            try:
                self._queue.put(entry, timeout=self._end_seconds)
            except queue.Full:
                break
        thread.join(self._end_seconds)
        if thread.is_alive():
            self._refused += sum(entry[1] for entry in [*self._queue.queue] if entry is not None)
            self._trouble = self._trouble or f"it was not ready {self._end_seconds:.0f} s after the end of the run"
        self._say()
        if lost := self._lost + self._refused:
            _LOGGER.warning("%s: %d values could not be written", self._sink.name, lost)

    def _put(self, task: Callable[[], None], values: int) -> None:
        if self._thread is None:
            return
        try:
            self._queue.put_nowait((task, values))
        except queue.Full:
            self._refused += values
            self._trouble = self._trouble or f"it is too slow: {self._queue.maxsize} entries wait to be written"
        self._say()

    def _say(self) -> None:
        """Say what went wrong, once, in the thread of the run."""
        if self._trouble is not None and not self._is_said:
            self._is_said = True
            _LOGGER.warning(
                "%s: %s; the run goes on, and what cannot be written is lost", self._sink.name, self._trouble
            )

    def _work(self, start: Start) -> None:
        """Do what is in the queue, until the end; the thread runs this."""
        self._is_open = self._attempt(lambda: self._sink.open(start))
        while (entry := self._queue.get()) is not None:
            task, values = entry
            if not (self._is_open and self._attempt(task)):
                self._lost += values

    def _attempt(self, task: Callable[[], None]) -> bool:
        try:
            task()
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            self._trouble = self._trouble or f"{type(error).__name__}: {text[:500]}"
            return False
        return True
