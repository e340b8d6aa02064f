"""Shows the progress of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trainkit.events import Live
from trainkit.printable import printable
from trainkit.state import share_of_waiting

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.state import State

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 30.0
_BAR_WIDTH = 20


class Progress(Live):
    """Part of every run, called after all others: shows its progress.

    Args:
        console: Prints the lines and holds the progress bar.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: Any = None
        self._began = self._next = time.perf_counter()
        self._epochs: deque[float] = deque(maxlen=20)  # seconds of the last epochs

    def on_run_start(self, state: State) -> None:
        """Open the progress bar on a terminal."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            bar = BarColumn(bar_width=_BAR_WIDTH)
            values = TextColumn("{task.fields[values]}", markup=False)
            live = Bar("{task.description}", bar, TimeRemainingColumn(), values, auto_refresh=False, transient=True)
            left = (state.epochs - state.epoch) * state.steps_per_epoch - state.steps_in_epoch
            total = state.step + left if state.steps is None else state.steps
            self._task = live.add_task("", total=total, completed=state.step, values="")
            live.start()
            self._console.live = live

    def on_group_start(self, state: State) -> None:
        """Print that a group starts."""
        if state.group is not None and state.epoch:
            lr = state.groups[state.group].lr
            self._console.say(f"epoch {state.epoch}: group {state.group} starts, lr {lr:.3g}")

    def on_group_stop(self, state: State) -> None:
        """Print that a group stops."""
        self._console.say(f"epoch {state.epoch}: group {state.group} stops")

    def on_epoch_start(self, state: State) -> None:
        """Set the time of the epoch's first update."""
        self._began = time.perf_counter()
        self._next = self._began + (_REFRESH_SECONDS if self._console.live else _PLAIN_SECONDS)

    def on_step_end(self, state: State) -> None:
        """Show the progress of the epoch from time to time; only then is the loss read from the device."""
        now = time.perf_counter()
        if now >= self._next:
            live = self._console.live
            self._next = now + (_REFRESH_SECONDS if live else _PLAIN_SECONDS)
            assert state.loss is not None
            loss = f"loss {state.loss.item():.4g}"
            so_far = state.seconds | {"steps": now - self._began - state.seconds["data"] - state.seconds["validation"]}
            if live:
                self._update(state, f"{loss}  {_waiting(so_far)}")
            else:
                where = f"epoch {state.epoch + 1}/{state.epochs}  step {state.steps_in_epoch}/{state.steps_per_epoch}"
                self._console.say(f"{where}  {loss}  {_waiting(so_far)}")

    def on_checkpoint(self, state: State) -> None:
        """Print values and times of an epoch that is finished, with its checkpoint, and bring the log to the disk."""
        if state.step and not state.steps_in_epoch:  # else it was saved inside an epoch, or before the first step
            self._report_epoch(state)
        self._console.sync()

    def on_run_end(self, state: State) -> None:
        """Close the progress bar."""
        if self._console.live:
            self._console.live.stop()
            self._console.live = None

    def _report_epoch(self, state: State) -> None:
        rates = [f"{name} {lr:.3g}" for name, lr in state.learning_rates().items() if state.groups[name].active]
        values = [f"{name} {value:.4g}" for name, value in state.metrics.items() if not name.startswith("lr/")]
        text = "  ".join([*values, "lr " + " ".join(rates)])
        spent = ", ".join(f"{what} {seconds:.2f}" for what, seconds in state.seconds.items())
        spent += f"; {_waiting(state.seconds)}"
        seconds = sum(state.seconds.values())
        self._epochs.append(seconds)
        left = timedelta(seconds=round(sum(self._epochs) / len(self._epochs) * (state.epochs - state.epoch)))
        line = f"epoch {state.epoch}/{state.epochs}  {text}  {seconds:.2f} s ({spent})  remaining {left}"
        self._console.say(line, shown=self._console.live is None)
        if self._console.live:
            self._update(state, f"{text}  {_waiting(state.seconds)}")

    def _update(self, state: State, values: str) -> None:
        live = self._console.live
        description = f"epoch {min(state.epoch + 1, state.epochs)}/{state.epochs}"
        room = (
            live.console.width - len(description) - _BAR_WIDTH - len(" 0:00:00 ") - 3
        )  # otherwise rich shrinks the bar
        live.update(self._task, completed=state.step, description=description, values=printable(values)[: max(room, 0)])
        live.refresh()


def _waiting(seconds: Mapping[str, float]) -> str:
    return f"waits for data {100 * share_of_waiting(seconds):.0f} %"
