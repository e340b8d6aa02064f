"""Runs a trial of a search: a run as of any other recipe, which may end early, and whose failure is only its own."""

from __future__ import annotations

import gc
import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.engine import run_folder
from trainkit.engine.every_run import metrics_file
from trainkit.engine.identity import CHECKPOINTS, identity_of
from trainkit.engine.queue import run_one
from trainkit.engine.start import RunOutcome, no_report
from trainkit.errors import CheckpointError, PartError, TrainkitError
from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.contracts import Monitor
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

ENDS_EARLY = "worse than other trials"
"""How the reason begins for which a trial ends early."""


@attrs.frozen
class TrialEnd:
    """How the run of a trial ended.

    Attributes:
        became: What became of it; "stopped": it was interrupted, and its run can be resumed.
        reason: Why it ended early, failed or was stopped.
        by_values: Whether it may have failed because of its values, such as a rate with which it diverged;
            not if a part has a bug, or nothing can be written.
        folder: Its run folder; None: there is none.
        doubts: Why its result is doubtful.
        signal: The signal that arrived while it ended; None: there was none.
    """

    became: Literal["finished", "ended early", "failed", "stopped"]
    reason: str = ""
    by_values: bool = False
    folder: Path | None = None
    doubts: tuple[str, ...] = ()
    signal: str | None = None


class EndEarly(Live):
    """Ends a run, with a checkpoint, after a validation that is worse than those of other trials.

    Args:
        should_end: Is called with a value and how far the run is; returns whether it should end.
        judged_by: The value by which trials are judged.
        by_steps: Whether it is looked at inside epochs as well, and counted in steps.
    """

    def __init__(self, should_end: Callable[[float, int], bool], judged_by: Monitor, by_steps: bool) -> None:
        self._should_end, self._judged_by, self._by_steps = should_end, judged_by, by_steps
        self._failed = False

    def on_validation_end(self, state: State) -> None:
        """Look at the value after an evaluation inside an epoch."""
        if self._by_steps and not state.closing and state.split == self._judged_by.metric.partition("/")[0]:
            self._look(state, state.step, is_last=False)

    def on_epoch_end(self, state: State) -> None:
        """Look at the value at the end of an epoch."""
        self._look(state, state.step if self._by_steps else state.epoch + 1, state.is_last_epoch)

    def _look(self, state: State, at: int, is_last: bool) -> None:
        value = state.metrics.get(self._judged_by.metric)
        if value is None or not math.isfinite(value):
            return
        try:
            ends = self._should_end(float(value), at)
        except Exception as error:  # the storage, for example a full disk: the run goes on without it
            if not self._failed:
                self._failed = True
                _LOGGER.warning("the study cannot be written, so this trial does not end early: %s", error)
            return
        if ends and not is_last:
            unit = "steps" if self._by_steps else f"epoch{'s' * (at != 1)}"
            state.stop(f"{ENDS_EARLY}: {self._judged_by.metric} {value:.5g} after {at} {unit}")


def run_trial(
    resolved: Resolved, console: Console, should_end: Callable[[float, int], bool] | None, judged_by: Monitor
) -> TrialEnd:
    """Start the run of a trial, resume it, or look at how it ended; whatever fails in it is returned, not raised.

    Args:
        resolved: Its recipe.
        console: Prints the messages.
        should_end: See `EndEarly`; None: it does not end early.
        judged_by: The value by which trials are judged.
    """
    by_steps = bool(resolved.recipe.validation.every_steps)
    extra: dict[str, Callable[[LiveRun], object]] = {}
    if should_end is not None:
        extra["search"] = lambda run: EndEarly(should_end, judged_by, by_steps)
    try:
        outcome, before = run_one(resolved, console, continue_unfinished=True, report=no_report, extra=extra)
    except Exception as error:
        if not isinstance(error, TrainkitError):
            console.say(traceback.format_exc(), shown=False)
        console.say(f"failed: {error if isinstance(error, TrainkitError) else f'{type(error).__name__}: {error}'}")
        by_values = isinstance(error, TrainkitError) and not isinstance(error, PartError | CheckpointError)
        return TrialEnd("failed", _first_line(error), by_values, run_folder.earlier_run(resolved))
    finally:
        console.log_to(None)
    if isinstance(outcome, RunOutcome):
        state = outcome.run.state
        if state.interrupted:
            return TrialEnd("stopped", state.ended, folder=state.folder)
        return attrs.evolve(_as_ended(state.folder, state.ended, state.doubts), signal=outcome.signal)
    assert before is not None
    ended = str((run_folder.starts(before) or [{}])[-1].get("ended", ""))
    return _as_ended(before, ended, run_folder.doubts(before))


def _as_ended(folder: Path, ended: str, doubts: Sequence[str]) -> TrialEnd:
    reason = ended.removeprefix("stopped: ")
    if reason.startswith(ENDS_EARLY):
        return TrialEnd("ended early", reason, folder=folder)
    return TrialEnd("finished", folder=folder, doubts=tuple(doubts))


def _first_line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, TrainkitError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def forget_the_last_run() -> None:
    """Free the memory of a run that has ended, also on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def how_far(resolved: Resolved) -> list[int] | None:
    """Return how many epochs and steps the run of a trial has saved; None: it has no checkpoint."""
    folder = run_folder.earlier_run(resolved)
    if folder is None:
        return None
    newest = CheckpointFolder(folder / CHECKPOINTS, identity_of(folder).id).newest_header()
    return None if newest is None else [int(newest["epoch"]), int(newest["step"])]


@attrs.frozen
class Values:
    """What a run reached.

    Attributes:
        values: The values by which it is judged; None: one of them is missing.
        epoch: Number of finished epochs at them; None: there is none, or they are of several.
        missing: Why there are none; "": there are.
        epochs: Number of finished epochs.
        seconds: For how long it trained.
    """

    values: tuple[float, ...] | None
    epoch: int | None
    missing: str
    epochs: int
    seconds: float


def values_of(folder: Path, judged_by: Sequence[Monitor], takes_best: bool) -> Values:
    """Read what a run reached from its ``metrics.jsonl``.

    Args:
        folder: The run folder.
        judged_by: The values by which it is judged.
        takes_best: Whether the best value counts, of those that are finite, and not the last one.
    """
    lines = metrics_file.read(folder)
    whole = [line for line in lines if "seconds" in line]
    values: list[float] = []
    epochs: set[int] = set()
    missing = ""
    for each in judged_by:
        known: list[Mapping[str, Any]] = [line for line in lines if each.metric in line]
        good = [line for line in known if line[each.metric] is not None]
        if not known or not good or (known[-1][each.metric] is None and not takes_best):
            missing = f"{each.metric} was {'never computed' if not known else 'not a finite number'}"
            continue
        numbers = [float(line[each.metric]) for line in good]
        best = numbers.index(min(numbers) if each.mode == "min" else max(numbers))
        line, value = (good[best], numbers[best]) if takes_best else (good[-1], numbers[-1])
        values.append(value)
        epochs.add(int(line[metrics_file.EPOCHS]))
    seconds = float(sum(line["seconds"] or 0.0 for line in whole))
    epoch = epochs.pop() if len(epochs) == 1 else None
    return Values(None if missing else tuple(values), epoch, missing, len(whole), seconds)
