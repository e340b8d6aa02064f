"""What is known of one run, read from its folder: recipe, starts, state, values, checkpoints, parent.

A folder may be half-written, because its run is going on, or damaged, or of an older version. What cannot be read is
named in `RunRecord.problems`, and is no error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import attrs

from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.contracts import MetricName, Monitor
from trainkit.cpu_waits import is_disturbed
from trainkit.engine.every_run import metrics_file
from trainkit.engine.every_run.metrics_file import NAME as METRICS
from trainkit.engine.folder_lock import Holder, holder
from trainkit.engine.identity import CHECKPOINTS, MOST_BYTES, Identity, Origin, identity_of, parsed_time
from trainkit.engine.journal import Request, read_readable
from trainkit.engine.run_folder import CPU_WAIT, RECIPE, starts
from trainkit.errors import CheckpointError
from trainkit.files.reading import read_small
from trainkit.runs.settings import settings_of
from trainkit.runs.values import Value, Values, read_values

STATES = ("running", "finished", "diverged", "doubtful", "stopped", "failed", "killed", "unknown")
"""States of a run; see `RunState`."""

_DIVERGED = "the training diverged"  # how the doubt begins with which a diverged run ends


@attrs.frozen
class RunState:
    """How it stands with a run.

    Attributes:
        name: "running"; "finished", also early; "diverged" or "doubtful": finished, but the result is not to be
            trusted; "stopped" by a signal or a time limit, so that a resume continues it; "failed" with an error;
            "killed": its process ended without a word; "unknown": the record of its starts cannot be read.
        why: The reason, as far as one is known.
        holder: The process in which it runs; None: it does not run.
    """

    name: Literal["running", "finished", "diverged", "doubtful", "stopped", "failed", "killed", "unknown"]
    why: str = ""
    holder: Holder | None = None


@attrs.define(slots=False)
class RunRecord:
    """What is known of one run. Each part is read when it is asked for, and kept.

    Attributes:
        folder: The run folder.
    """

    folder: Path
    _problems: dict[str, None] = attrs.field(init=False, factory=dict)

    @property
    def problems(self) -> list[str]:
        """What cannot be read of the folder, as far as it was asked for: a sentence each."""
        return list(self._problems)

    def _note(self, problem: str) -> None:
        self._problems[problem] = None

    @cached_property
    def identity(self) -> Identity:
        """Id, time of creation, and parent."""
        found = identity_of(self.folder)
        if found.recipe is None and (self.folder / "run.json").exists():
            self._note("run.json cannot be read")
        return found

    @property
    def id(self) -> str:
        """The run's id."""
        return self.identity.id

    @property
    def parent(self) -> Origin | None:
        """The checkpoint of another run from which this one began; None: it began at the beginning."""
        return self.identity.parent

    @property
    def created(self) -> datetime | None:
        """When the run was created; None: unknown."""
        return parsed_time(self.identity.created)

    @cached_property
    def recipe(self) -> str | None:
        """The text of the resolved recipe of the last start; None: it cannot be read."""
        if self.identity.recipe is not None:
            return self.identity.recipe
        try:
            return read_small(self.folder / RECIPE, "a recipe", MOST_BYTES).decode()
        except (OSError, ValueError) as error:
            self._note(f"{RECIPE} cannot be read ({_reason(error)})")
            return None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the recipe: dotted key -> value; none if it cannot be read."""
        try:
            return settings_of(self.recipe or "")
        except (ValueError, RecursionError):
            self._note("its recipe is damaged")
            return {}

    @property
    def name(self) -> str:
        """The run's name."""
        known = self.settings.get("run.name")
        return known if isinstance(known, str) else self.folder.resolve().parent.name

    @property
    def monitor(self) -> Monitor | None:
        """Which value decides what is best; None: unknown."""
        metric, mode = self.settings.get("monitor.metric"), self.settings.get("monitor.mode")
        if not isinstance(metric, str) or mode not in ("min", "max"):
            return None
        return Monitor(metric=MetricName(metric), mode=mode)

    @property
    def planned_epochs(self) -> int | None:
        """How many epochs the run should have; None: it has a number of steps, or this is unknown."""
        return _count(self.settings.get("run.epochs"))

    @property
    def planned_steps(self) -> int | None:
        """How many steps the run should have; None: it has a number of epochs, or this is unknown."""
        return _count(self.settings.get("run.steps"))

    @cached_property
    def starts(self) -> Sequence[Mapping[str, Any]]:
        """The record of each start: time, command, versions, machine, and how it ended."""
        found = starts(self.folder)
        if not found:
            self._note("environment.json is missing or cannot be read")
        return found

    @cached_property
    def state(self) -> RunState:
        """How it stands with the run."""
        running = holder(self.folder)
        if running is not None:
            return RunState("running", "" if running.is_certain else "its heartbeat says so", running)
        if not self.starts:
            return RunState("unknown", "environment.json is missing or cannot be read")
        last = self.starts[-1]
        ended, doubts = last.get("ended"), last.get("doubts")
        if not isinstance(ended, str):
            return RunState("killed", "its process ended without a word")
        if not last.get("finished"):
            failed = ended.startswith("failed") and "StoppedAtOnce" not in ended
            error = last.get("error")
            why = error if isinstance(error, str) and error else ended.partition(": ")[2]
            return RunState("failed" if failed else "stopped", why)
        reasons = [str(each) for each in doubts] if isinstance(doubts, list) else []
        if reasons:
            first = next((each for each in reasons if each.startswith(_DIVERGED)), None)
            return RunState("doubtful" if first is None else "diverged", first or reasons[0])
        return RunState("finished", f"early: {ended.partition(': ')[2]}" if ended.startswith("stopped") else "")

    @cached_property
    def values(self) -> Values:
        """The values that the run has written."""
        try:
            found = read_values(self.folder, self._began)
        except OSError as error:
            self._note(f"{METRICS} cannot be read ({_reason(error)})")
            return Values()
        if found.num_damaged:
            self._note(f"{METRICS}: {found.num_damaged} lines cannot be read")
        return found

    @cached_property
    def journal(self) -> Sequence[Request]:
        """What was asked of the run while it trained."""
        found, problem = read_readable(self.folder)
        if problem:
            self._note(problem)
        return found

    @property
    def _began(self) -> Mapping[str, int]:
        """After how many finished epochs each value got its present meaning; only a resume can have changed it."""
        if len(self.starts) < 2 and self.parent is None:
            return {}
        parts = (self.newest_header or {}).get("parts")
        outcome = parts.get("outcome") if isinstance(parts, Mapping) else None
        known = outcome.get("first_epochs") if isinstance(outcome, Mapping) else None
        if not isinstance(known, Mapping):
            return {}
        return {str(name): epoch for name, epoch in known.items() if type(epoch) is int}

    @property
    def best(self) -> Value | None:
        """The best monitored value; None: there is none."""
        return None if self.monitor is None else self.values.best(self.monitor)

    @cached_property
    def newest_header(self) -> Mapping[str, Any] | None:
        """The content of the newest checkpoint without tensors, which may still be damaged; None: there is none."""
        try:
            return self.checkpoints.newest_header()
        except CheckpointError as error:
            self._note(str(error))
            return None

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The folder of its checkpoints."""
        return CheckpointFolder(self.folder / CHECKPOINTS, self.id)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all starts; of one whose end is not recorded, as far as its files tell."""
        total = 0.0
        for number, start in enumerate(self.starts):
            began = _time(start.get("time"))
            ended = _time(start.get("ended_at"))
            if began is None:
                continue
            if ended is None and number == len(self.starts) - 1:
                ended = datetime.now(UTC) if self.state.name == "running" else self._last_sign
            if ended is not None:
                total += max(0.0, (ended - began).total_seconds())
        return total

    @property
    def cpu_wait_share(self) -> float | None:
        """Share of the time of its starts in which other work kept the CPUs from the run; None: not recorded.

        Starts that were killed count only if they had said before that they wait.
        """
        waited, seconds = self._cpu_wait
        return waited / seconds if seconds > 0 else None

    @property
    def disturbance(self) -> str:
        """Why its time says more about other programs than about the run, in words; "": it does not, or unknown."""
        waited, seconds = self._cpu_wait
        if not is_disturbed(waited, seconds):
            return ""
        return f"for {100 * waited / seconds:.0f} % of it, other work kept the CPUs from the run"

    @cached_property
    def _cpu_wait(self) -> tuple[float, float]:
        """For how many seconds the run was kept waiting for a CPU, and of how many seconds that is known."""
        known = [each for start in self.starts if isinstance(each := start.get(CPU_WAIT), Mapping)]
        waited, seconds = (
            sum(metrics_file.number(each.get(name)) or 0.0 for each in known) for name in ("seconds", "of_seconds")
        )
        return waited, seconds

    @property
    def _last_sign(self) -> datetime | None:
        try:
            return datetime.fromtimestamp(os.stat(self.folder / METRICS).st_mtime, UTC)
        except OSError:
            return None


def _time(text: Any) -> datetime | None:
    return parsed_time(text) if isinstance(text, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
