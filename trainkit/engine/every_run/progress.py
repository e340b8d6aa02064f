"""Shows the progress of a run: a lasting line for each epoch, and below it, on a terminal, one that is live."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.cpu_waits import is_disturbed
from trainkit.engine.every_run.epoch_line import EpochLine, all_values, counted
from trainkit.engine.every_run.time_left import Estimator
from trainkit.engine.stopwatch import shares_in_words
from trainkit.events import Live
from trainkit.state import OF_NO_EPOCH, share_of_waiting
from trainkit.words import after_epochs, duration

if TYPE_CHECKING:
    from trainkit.checkpoint.folder import Best
    from trainkit.console import Console
    from trainkit.engine.live_run import LiveRun
    from trainkit.state import State

_REFRESH_SECONDS = 0.25
_PLAIN_SECONDS = 30.0
_LAST = "finishing: results and last pictures"
_WORTH_A_WORD = 0.05  # share of the time of the steps that is spent waiting for data


class Progress(Live):
    """Part of every run, called after all others: shows its progress.

    Args:
        console: Prints the lines and holds the live line.
        run: The run.
        best: The best monitored value so far; None: there is none.
        estimator: Estimates the time left.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, console: Console, run: LiveRun, best: Best | None, estimator: Estimator) -> None:
        self._console, self._watch, self._budget = console, run.watch, run.picture_budget
        self._best = None if best is None else best.value
        self._line, self._estimator = EpochLine(), estimator
        self._pictures = 0  # made before the epoch
        self._next = 0.0
        self._evaluated = 0  # batches of the evaluation that is under way
        self._first_step = 0  # step at which the epoch began, or the run was resumed within it
        self._before: Mapping[str, float] = {}
        self._late: Any = None

    def on_run_start(self, state: State) -> None:
        """Begin the live line on a terminal."""
        self._first_step = state.step
        self._console.begin_live()
        self._next = time.perf_counter() + self._pause

    def on_group_start(self, state: State) -> None:
        """Print that a group starts."""
        if state.group is not None and state.epoch:
            lr = state.groups[state.group].lr
            facts = {"group": state.group, "epoch": state.epoch, "lr": lr}
            self._console.tell(
                "group_start", facts, f"{after_epochs(state.epoch)}: group {state.group} starts, lr {lr:.3g}"
            )

    def on_group_stop(self, state: State) -> None:
        """Print that a group stops."""
        facts = {"group": state.group, "epoch": state.epoch}
        self._console.tell("group_stop", facts, f"{after_epochs(state.epoch)}: group {state.group} stops")

    def on_epoch_start(self, state: State) -> None:
        """Remember what was spent before the first epoch."""
        if not self._before:
            self._before = dict(self._watch.laps)

    def on_step_end(self, state: State) -> None:
        """Show the progress of the epoch from time to time; only then is the loss read from the device."""
        if time.perf_counter() < self._next:
            return
        with self._watch.during("logging"):
            assert state.loss is not None
            loss, waiting = state.loss.item(), share_of_waiting(state.seconds)
            parts = [f"step {state.steps_in_epoch}/{state.steps_per_epoch}", f"loss {loss:.4g}"]
            if waiting >= _WORTH_A_WORD:
                parts.append(f"waits for data {100 * waiting:.0f} %")
            self._show(state, parts, {"loss": loss, "share_of_waiting": round(waiting, 4)})

    def on_validation_start(self, state: State) -> None:
        """Begin to count the batches of a split."""
        self._evaluated = 0

    def on_validation_step_end(self, state: State) -> None:
        """Show the progress of an evaluation from time to time."""
        self._evaluated += 1
        if time.perf_counter() >= self._next:
            facts = {"split": state.split, "batch": self._evaluated}
            self._show(state, [f"evaluates {state.split}, batch {self._evaluated}"], facts)

    def on_checkpoint(self, state: State) -> None:
        """Print values and times of an epoch that is finished, with its checkpoint, and bring the log to the disk."""
        if state.step and not state.steps_in_epoch:  # else it was saved inside an epoch, or before the first step
            spent, left = self._taken_in(state)
            if state.awaits_values:
                self._late = spent, left
            else:
                self._report_epoch(state, spent, left)
        self._console.sync()

    def on_late_values(self, state: State) -> None:
        """Print an epoch whose values have come."""
        self._report_epoch(state, *self._late)
        self._console.sync()

    def on_run_end(self, state: State) -> None:
        """Remove the live line."""
        self._console.end_live()

    @property
    def _pause(self) -> float:
        return _REFRESH_SECONDS if self._console.live else _PLAIN_SECONDS

    def _show(self, state: State, parts: list[str], more: Mapping[str, Any]) -> None:
        left = self._estimator.left(state)
        epoch = counted(state, min(state.epoch + 1, state.epochs))
        text = "  ".join([f"in {epoch}", *parts, *([] if left is None else [str(left)])])
        if self._console.live:
            self._console.live.show(text)
        else:
            seconds = None if left is None else round(left.seconds, 3)
            facts = {"epoch": state.epoch, "step": state.step, "seconds_left": seconds, **more}
            self._console.tell("progress", facts, text)
        self._next = time.perf_counter() + self._pause

    def _taken_in(self, state: State) -> Any:
        now = self._watch.totals()
        self._before = self._before or {"starting": now["starting"]}  # if the run was resumed within an epoch
        spent = {activity: seconds - self._before.get(activity, 0.0) for activity, seconds in now.items()}
        self._before = now
        self._estimator.take_in(state, spent, self._first_step, self._budget.times_made - self._pictures)
        self._first_step, self._pictures = state.step, self._budget.times_made
        goes_on = state.epoch < state.epochs and state.stop_reason is None
        left = self._estimator.left(state) if goes_on else None
        return spent, left

    def _report_epoch(self, state: State, spent: Mapping[str, float], left: Any) -> None:
        goes_on = state.epoch < state.epochs and state.stop_reason is None
        is_best = self._becomes_best(state)
        seconds = sum(spent.values())
        in_full = ", ".join(f"{activity} {each:.2f}" for activity, each in spent.items() if activity not in OF_NO_EPOCH)
        full = f"{counted(state)}  {all_values(state)}{'  best' if is_best else ''}  {seconds:.2f} s ({in_full}; "
        full += f"waits for data {100 * share_of_waiting(spent):.0f} %"
        if state.cpu_wait_seconds is not None:
            full += f", for a CPU {state.cpu_wait_seconds:.2f} s"
        full += ")" + (f"  {left}" if left else "")
        took, words = duration(seconds), "" if left is None else str(left)
        shown = self._line.text(state, is_best=is_best, took=took, left=words, width=self._console.width)
        facts = {
            "epoch": state.epoch,
            "epochs": state.epochs,
            "step": state.step,
            "values": {name: value for name, value in state.metrics.items() if not name.startswith("lr/")},
            "lr": {name: lr for name, lr in state.learning_rates().items() if state.groups[name].active},
            "is_best": is_best,
            "seconds": {activity: round(each, 6) for activity, each in spent.items() if activity not in OF_NO_EPOCH},
            "cpu_wait_seconds": None if state.cpu_wait_seconds is None else round(state.cpu_wait_seconds, 6),
            "seconds_left": None if left is None else round(left.seconds, 3),
            "takes_longer": None if left is None else left.is_least,
            "is_guess": None if left is None else left.is_guess,
        }
        if self._console.live:  # what it said of the epoch is over
            next_epoch = "" if left is None else f"in {counted(state, state.epoch + 1)}  {left}"
            self._console.live.text = next_epoch if goes_on else _LAST
        self._console.tell("epoch", facts, full, shown=shown)

    def _becomes_best(self, state: State) -> bool:
        value = state.metrics.get(state.monitor.metric)
        if value is None or not math.isfinite(value):
            return False
        sign = -1.0 if state.monitor.mode == "min" else 1.0
        if self._best is not None and sign * value <= sign * self._best:
            return False
        self._best = value
        return True


def time_in_words(seconds: Mapping[str, float], waited: float | None) -> str:
    """Return how long a run took, which share of it each activity had, and whether it had to wait for CPUs.

    Args:
        seconds: Activity -> its seconds.
        waited: Seconds of all this in which the run had no CPU; None: not counted.
    """
    total = sum(seconds.values())
    text = f"{duration(total)}: {shares_in_words(seconds)}"
    if waited is None or not is_disturbed(waited, total):
        return text
    return f"{text}; for {100 * waited / total:.0f} % of it, other work kept the CPUs from the run"
