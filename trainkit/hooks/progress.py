"""What a person sees of a running training: a live line on a terminal, plain lines elsewhere, and ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.state import State

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 30.0
_BAR_WIDTH = 20


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
    def heard(self) -> Iterator[None]:
        """Say, too, what a run's parts tell Python's logger "trainkit", from level INFO up."""
        logger, handler = logging.getLogger("trainkit"), _Ear(self.say)
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


class _Ear(logging.Handler):
    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._told(prefix + record.getMessage())


class Progress:
    """Part of every run, the last one to be called: tells where it stands.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: Any = None
        self._next = 0.0
        self._epochs: deque[float] = deque(maxlen=20)  # seconds of the last ones

    def on_run_start(self, state: State) -> None:
        """Open the live line, on a terminal."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            bar = BarColumn(bar_width=_BAR_WIDTH)
            values = TextColumn("{task.fields[values]}", markup=False)
            live = Bar("{task.description}", bar, TimeRemainingColumn(), values, auto_refresh=False, transient=True)
            total = state.step + (state.epochs - state.epoch) * state.steps_per_epoch - state.steps_in_epoch
            self._task = live.add_task("", total=total, completed=state.step, values="")
            live.start()
            self._console.live = live

    def on_group_start(self, state: State) -> None:
        """Say that a group starts."""
        if state.group is not None and state.epoch:
            lr = state.groups[state.group].lr
            self._console.say(f"epoch {state.epoch}: group {state.group} starts, lr {lr:.3g}")

    def on_group_stop(self, state: State) -> None:
        """Say that a group stops."""
        self._console.say(f"epoch {state.epoch}: group {state.group} stops")

    def on_epoch_start(self, state: State) -> None:
        """Wait with the first sign of the epoch."""
        self._next = time.perf_counter() + (_REFRESH_SECONDS if self._console.live else _PLAIN_SECONDS)

    def on_step_end(self, state: State) -> None:
        """Now and then show where the epoch stands; only then is the loss read from the device."""
        now = time.perf_counter()
        if now >= self._next:
            live = self._console.live
            self._next = now + (_REFRESH_SECONDS if live else _PLAIN_SECONDS)
            assert state.loss is not None
            loss = f"loss {state.loss.item():.4g}"
            if live:
                self._update(state, loss)
            else:
                where = f"epoch {state.epoch + 1}/{state.epochs}  step {state.steps_in_epoch}/{state.steps_per_epoch}"
                self._console.say(f"{where}  {loss}")

    def on_checkpoint(self, state: State) -> None:
        """Say the values of an epoch that is finished, its checkpoint included, and where its time went."""
        if state.steps_in_epoch:
            return  # saved inside an epoch
        rates = [f"{name} {lr:.3g}" for name, lr in state.learning_rates().items() if state.groups[name].active]
        values = [f"{name} {value:.4g}" for name, value in state.metrics.items() if not name.startswith("lr/")]
        text = "  ".join([*values, "lr " + " ".join(rates)])
        spent = " + ".join(f"{what} {seconds:.2f}" for what, seconds in state.seconds.items())
        seconds = sum(state.seconds.values())
        self._epochs.append(seconds)
        left = timedelta(seconds=round(sum(self._epochs) / len(self._epochs) * (state.epochs - state.epoch)))
        line = f"epoch {state.epoch}/{state.epochs}  {text}  {seconds:.2f} s = {spent}  left {left}"
        self._console.say(line, shown=self._console.live is None)
        if self._console.live:
            self._update(state, text)

    def on_run_end(self, state: State) -> None:
        """Close the live line."""
        if self._console.live:
            self._console.live.stop()
            self._console.live = None

    def _update(self, state: State, values: str) -> None:
        live = self._console.live
        description = f"epoch {min(state.epoch + 1, state.epochs)}/{state.epochs}"
        room = live.console.width - len(description) - _BAR_WIDTH - len(" 0:00:00 ") - 3  # else rich squeezes the bar
        live.update(self._task, completed=state.step, description=description, values=values[: max(room, 0)])
        live.refresh()
