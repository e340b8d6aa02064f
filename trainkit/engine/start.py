"""Starts a run, trains it, and ends it properly even after an error or a signal."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import torch

from trainkit.engine import run_folder, signals
from trainkit.engine.build import build
from trainkit.engine.compiling import compiler_trouble
from trainkit.engine.earlier_prices import RECORD as PRICES
from trainkit.engine.earlier_prices import of_earlier_runs
from trainkit.engine.earlier_prices import record as price_record
from trainkit.engine.every_run import metrics_file
from trainkit.engine.every_run.progress import Progress
from trainkit.engine.every_run.saving import facts_of, saver_of
from trainkit.engine.every_run.time_left import Estimator
from trainkit.engine.identity import identity_of
from trainkit.engine.introduction import in_words, introduction
from trainkit.engine.launched import is_launched
from trainkit.engine.live_run import PROGRESS
from trainkit.engine.loop import train
from trainkit.engine.prices import Prices
from trainkit.engine.several import call_others
from trainkit.engine.stage_trial import StageTrial
from trainkit.engine.stages import Stages
from trainkit.errors import DeviceError, NonFiniteError, PartError, ProcessError, TrainkitError, exit_in_words
from trainkit.events import fire
from trainkit.printable import printable
from trainkit.processes.meeting import meeting
from trainkit.words import number_of

if TYPE_CHECKING:
    from trainkit.checkpoint.folder import Best
    from trainkit.console import Console
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State


_LONGEST_ERROR = 4000  # characters of a message that are recorded


class ExitCode(IntEnum):
    """Exit codes of a run. A wrong recipe or command line has exit code 2 (`RecipeError`)."""

    FINISHED = 0
    FAILED = 1
    DOUBTFUL = 3
    """Finished, but a part of the run says that its result is doubtful (`State.doubt`)."""
    STOPPED = 75
    """Stopped by a signal or the time limit, with a checkpoint: ``trainkit resume`` continues it (EX_TEMPFAIL)."""


@attrs.frozen
class RunOutcome:
    """How a run ended.

    Attributes:
        run: The run after its end.
        code: The exit code.
        newest: The newest checkpoint; None: there is none.
        best: The checkpoint with the best monitored value; None: there is none.
        signal: The signal that arrived while the run ended, and changed nothing of it; None: there was none.
    """

    run: LiveRun
    code: ExitCode
    newest: Path | None
    best: Best | None
    signal: str | None = None


Extra = Mapping[str, Callable[["LiveRun"], object]]
"""Further live parts of a run, which are called last: name -> makes the part for the run."""

NOTHING_MORE: Extra = MappingProxyType({})

Report = Callable[[RunOutcome, "Console"], None]
"""Prints how a run ended. A signal that arrives meanwhile waits, as for the results."""


def no_report(outcome: RunOutcome, console: Console) -> None:
    """Print nothing."""


def start(
    resolved: Resolved,
    console: Console,
    locked: Callable[[], None] = lambda: None,
    report: Report = no_report,
    extra: Extra = NOTHING_MORE,
) -> RunOutcome:
    """Run a recipe from the beginning, in a new run folder.

    Args:
        resolved: The recipe.
        console: Prints the messages.
        locked: Called when the new folder is locked.
        report: Called with the outcome, unless the run failed.
        extra: Further live parts.

    Raises:
        TrainkitError: The run cannot start, or failed.
        StoppedEarly: A signal arrived before training began; there is no run folder.
    """
    console.log_to(None)
    with signals.ending_the_program(), console.capture_logging(), run_folder.created(resolved) as folder:
        locked()
        return start_in(folder, resolved, console, is_new=True, report=report, extra=extra)


def start_in(
    folder: Path,
    resolved: Resolved,
    console: Console,
    *,
    is_new: bool,
    report: Report = no_report,
    extra: Extra = NOTHING_MORE,
) -> RunOutcome:
    """Run a recipe from the beginning in a run folder that this process has locked.

    Args:
        folder: The run folder.
        resolved: The recipe.
        console: Prints the messages.
        is_new: Whether the folder was just made; otherwise a run was killed in it before its first checkpoint.
        report: Called with the outcome, unless the run failed.
        extra: Further live parts.

    Raises:
        TrainkitError: The run cannot start, or failed.
    """
    try:
        run = build(resolved, folder, place=meeting().place)
        for name, make in extra.items():
            run.add(name, make(run))
    except BaseException:
        if is_new:
            run_folder.discard(folder)  # nothing has run in it
        raise
    if not is_new:
        run_folder.describe(folder, resolved, identity_of(folder))
        if metrics_file.cut_back(folder, 0, -1):
            warn_of_repeats(run, console)
        run.resumed = True
        run.state.about.continues = folder
    console.log_to(folder / run_folder.LOG)
    console.say(f"run folder: {folder}", shown=not console.as_json)
    return execute(run, console, report)


def execute(run: LiveRun, console: Console, report: Report = no_report) -> RunOutcome:
    """Train a built run to its end.

    The first signal stops the run after its step; at the end of the run, it waits until the results are written and
    reported. A second signal stops the run at once.

    Args:
        run: The run, at its beginning or restored from a checkpoint.
        console: Prints the messages.
        report: Called with the outcome, unless the run failed.

    Raises:
        TrainkitError: The run failed; everything up to the last checkpoint is on the disk.
    """
    state = run.state
    estimator = _estimator(run)
    run.add(PROGRESS, Progress(console, run, saver_of(run).best, estimator), tolerated=Exception)
    facts = introduction(run)
    console.tell("start", facts, *in_words(facts))
    stopping = _Stopping(state, console)
    _note_built(run, console)
    with signals.handled(stopping.on_signal):
        try:
            call_others(run)
            train(run)
            meeting().is_busy = False
            reason = state.interrupt_reason or state.stop_reason
            state.ended = f"stopped: {reason}" if reason else "finished"
        except NonFiniteError as error:  # in every process
            meeting().is_busy = False
            state.ended = f"failed: {error}"
            raise NonFiniteError(_explain(run, error)) from error
        except ProcessError as error:
            state.ended = f"failed: {type(error).__name__}"
            raise _explain_process(run, error) from error
        except SystemExit as error:
            state.ended = "failed: SystemExit"
            console.say(traceback.format_exc(), shown=False)
            instead = PartError(f"a part of the run {exit_in_words(error)}")
            instead.log = state.folder / run_folder.LOG
            raise instead from error
        except BaseException as error:
            state.ended = f"failed: {type(error).__name__}"
            if isinstance(error, PartError):
                error.log = state.folder / run_folder.LOG
            if not isinstance(error, TrainkitError) or isinstance(error, PartError):
                console.say(traceback.format_exc(), shown=False)
            if (trouble := _trouble(run, error)) is not None:
                raise DeviceError(trouble) from error
            raise
        finally:
            stopping.ending = True
            _end(run, console, estimator)
        saver = saver_of(run)
        outcome = RunOutcome(run, _exit_code(state), saver.newest, saver.best)
        report(outcome, console)
    return attrs.evolve(outcome, signal=stopping.at_the_end)


def warn_of_repeats(run: LiveRun, console: Console) -> None:
    """Name the loggers that will write again what a killed process wrote after its last checkpoint."""
    for name in run.not_told_where_it_continues():
        console.say(
            f"warning: {name} has neither on_resume nor on_run_start, so it cannot remove what it wrote after the last "
            "checkpoint, which is logged again (see docs/resume.md)"
        )


def finished_before(doubts: Sequence[str], console: Console) -> ExitCode:
    """Say again why the result of a run that has nothing left to do is doubtful, and return its exit code."""
    for text in doubts:
        console.doubt(text)
    return ExitCode.DOUBTFUL if doubts else ExitCode.FINISHED


def _exit_code(state: State) -> ExitCode:
    if state.interrupted:
        return ExitCode.STOPPED
    return ExitCode.DOUBTFUL if state.doubts else ExitCode.FINISHED


@attrs.define
class _Stopping:
    """Makes the first signal stop the run after its step, or wait for its end, and a second one stop it at once."""

    state: State
    console: Console
    ending: bool = False
    signalled: bool = False
    at_the_end: str | None = None

    def on_signal(self, name: str) -> None:
        """Act on a signal.

        Raises:
            StoppedAtOnce: It is the second one.
        """
        if self.signalled and is_launched():
            return  # a queue may signal every process and the launcher, which passes it on; at a second one, it kills
        if self.signalled:
            raise signals.StoppedAtOnce(name)
        self.signalled = True
        if self.ending:
            self.at_the_end = name
        else:
            self.state.interrupt(f"signal {name}")
        first = "writing the results" if self.ending else "finishing this step, then saving"
        self.console.say(f"{name}: {first}; a second signal stops the run at once")


def _note_built(run: LiveRun, console: Console) -> None:
    """Record where the start begins, on what the run computes, and with which data."""
    context = run.state.context
    known = {
        "finished_epochs": run.state.epoch,
        "finished_steps": run.state.step,
        "device": str(context.device),
        "computes_on": run.conditions,
        "data": {"fingerprint": dict(run.fingerprint), "facts": facts_of(run)},
    }
    try:
        run_folder.note_built(run.state.folder, known)
    except OSError as error:
        console.say(f"warning: {run.state.folder} cannot be written ({error.strerror or error}); the run goes on")


def _estimator(run: LiveRun) -> Estimator:
    """Return what estimates the time left; it tries the stages that earlier runs do not tell the price of."""
    state, first = run.state, run.state.context.rank == 0
    stages = Stages(run.recipe, state.groups, run.groups.plans, state.epochs)
    earlier = of_earlier_runs(run) if first else Prices()
    trial = StageTrial(run, stages, tuple(earlier.steps))
    if first and not state.is_trial and len({stage for *_, stage in stages.between(state.epoch, state.epochs)}) > 1:
        run.add("stage_trial", trial, tolerated=Exception)
    return Estimator(run.recipe, stages, earlier, lambda: trial.costs, run.picture_budget)


def _end(run: LiveRun, console: Console, estimator: Estimator) -> None:
    """Call ``run_end`` of every part, even if another one fails, and record how the run ended.

    Raises:
        PartError: A part failed, and the run had not failed before.
    """
    state = run.state
    first: Exception | None = None
    run.watch.switch("ending")
    for listener in run.events["run_end"]:
        try:
            fire([listener], state)
        except Exception as error:
            console.say(traceback.format_exc(), shown=False)
            if first is not None or state.failed:
                console.say(f"warning: {error}")
            else:
                first = error
    for where, times in state.failures.items():
        console.say(f"warning: {where}: failed {times} time{'s' * (times != 1)} in all; what it writes is not complete")
    if first is not None:
        state.ended = f"failed: {type(first).__name__}"
    finished = not (state.interrupted or state.failed)
    error_in_words = _in_words(first or sys.exception())
    spent, waited = run.watch.totals(), run.watch.waited_in_all()
    ending = spent["ending"] if finished and first is None else None
    more = {PRICES: price_record(run, estimator.prices(ending))}
    if waited is not None:
        more |= run_folder.cpu_wait(waited, sum(spent.values()))
    try:
        run_folder.note_end(
            state.folder, state.ended, finished=finished, doubts=state.doubts, error=error_in_words, more=more
        )
    except OSError as error:  # what ended the run first, such as a full disk, is what is reported
        console.say(
            f"warning: how the run ended cannot be recorded in {state.folder} ({error.strerror or error}); "
            "trainkit resume makes up for it"
        )
    if first is not None:
        if isinstance(first, PartError):
            first.log = state.folder / run_folder.LOG
        raise first


def _in_words(error: BaseException | None) -> str:
    """Return the message of an error, without secrets; "" for none."""
    if error is None:
        return ""
    text = str(error) if isinstance(error, TrainkitError) else f"{type(error).__name__}: {error}"
    return printable(text)[:_LONGEST_ERROR]


def _when(run: LiveRun) -> str:
    """Return how far a run is that has failed."""
    return f"after {number_of(run.state.epoch, 'epoch')} ({number_of(run.state.step, 'step')})"


def _trouble(run: LiveRun, error: BaseException) -> str | None:
    """Return a message for an error of the device that a user can fix; None if it is another error."""
    cause = error.__cause__ or error if isinstance(error, PartError) else error
    message = (str(cause).splitlines() or [""])[0]
    if isinstance(cause, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in message:
        what = f"the memory of {run.state.context.device} is full: {message}"
        advice = "lower data.batch_size (with run.accumulate, a step keeps its number of items), or use a smaller model"
    elif run.recipe.run.deterministic and "deterministic" in message:
        what = f"run.deterministic = true, but torch has no deterministic algorithm for an operation: {message}"
        advice = "set run.deterministic = false, or replace the part that needs this operation"
    elif run.recipe.run.compile and (failure := compiler_trouble(cause)):
        what, advice = failure
    else:
        return None
    newest = saver_of(run).newest
    there = f"last good checkpoint: {newest}" if newest else "no checkpoint was written yet"
    return f"{_when(run)}: {what}\n{advice}\n{there}"


def _explain_process(run: LiveRun, error: ProcessError) -> ProcessError:
    """Return the error with what the process says that failed, and what can be done."""
    said = meeting().failure()
    why = said or f"another process ended without a word, or did not answer within {run.recipe.run.patience}: {error}"
    newest = saver_of(run).newest
    there = f"last good checkpoint: {newest}" if newest else "no checkpoint was written yet"
    kind = ProcessError if said else type(error)
    return kind(f"{_when(run)}: {why}\n{there}")


def _explain(run: LiveRun, error: NonFiniteError) -> str:
    state, saver = run.state, saver_of(run)
    broken = [
        name
        for name, group in state.groups.items()
        if any(not bool(p.isfinite().all()) for p in group.parameters.values())
    ]
    rates = ", ".join(f"{name} lr {lr:.3g}" for name, lr in state.learning_rates().items() if state.groups[name].active)
    where = ", ".join(broken) or "none yet"
    has_fp16 = run.recipe.run.precision == "fp16"
    overflow = 'fp16 ends at 65504; run.precision = "bf16" has the range of fp32\n' if has_fp16 else ""
    if saver.newest:
        next_step = (
            f"last good checkpoint: {saver.newest}\n"
            f"resume from it with a smaller learning rate, for example: trainkit resume {saver.newest}"
            f"{run.resolved.resume_options} --set groups.{(broken or list(state.groups))[0]}.lr=…"
        )
    elif (state.epoch, error.epoch_step) == (0, 0):
        next_step = (
            "it was so in the first step, before any learning rate acted: look for values in the data that are not "
            "finite or extremely large (trainkit check --data), and for what the loss or the model does with zeros"
        )
    else:
        next_step = "no checkpoint was written yet; start again with a smaller learning rate"
    return (
        f"{_when(run)}: the loss, a gradient or a parameter is not finite: {error}\n{overflow}"
        f"groups that train: {rates}\n"
        f"groups with parameters that are not finite: {where}\n{next_step}"
    )
