"""Starting a run, anew or from a checkpoint, and ending it well however it ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import traceback
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from trainkit.engine import run_folder
from trainkit.engine.build import build
from trainkit.engine.every_run.progress import Progress
from trainkit.engine.every_run.saving import Saver
from trainkit.engine.loop import train
from trainkit.errors import DeviceError, NonFiniteError, PartError, TrainkitError
from trainkit.events import fire

if TYPE_CHECKING:
    from trainkit.checkpoint.folder import Best
    from trainkit.console import Console
    from trainkit.engine.run import Run
    from trainkit.recipe.resolve import Resolved
    from trainkit.state import State


class ExitCode(IntEnum):
    """Exit codes of a run; 2, for a wrong recipe or command line, is that of the error (`RecipeError`)."""

    FINISHED = 0
    FAILED = 1
    STOPPED = 75
    """Stopped by a signal or its time limit, with a checkpoint: ``trainkit resume`` continues it (EX_TEMPFAIL)."""


@attrs.frozen
class RunOutcome:
    """How a run ended.

    Attributes:
        run: The run, as it stands.
        code: Exit code.
        newest: The newest checkpoint.
        best: The best monitored value among the checkpoints, and where it was reached.
    """

    run: Run
    code: ExitCode
    newest: Path | None
    best: Best | None


def start(resolved: Resolved, console: Console) -> RunOutcome:
    """Run a recipe from the beginning, in a new run folder.

    Raises:
        TrainkitError: The run cannot start, or failed.
    """
    console.log_to(None)
    folder = run_folder.create(resolved)
    with run_folder.lock(folder), console.capture_logging():
        try:
            run = build(resolved, folder)
        except BaseException:
            shutil.rmtree(folder)  # nothing was run in it
            raise
        console.log_to(folder / run_folder.LOG)
        console.say(f"run folder: {folder}")
        return execute(run, console)


def execute(run: Run, console: Console) -> RunOutcome:
    """Train a built run to its end, saving as it goes.

    Args:
        run: The run, at its beginning or where a checkpoint stood.
        console: Where it speaks.

    Raises:
        TrainkitError: It failed; everything up to the last checkpoint is on the disk.
    """
    state = run.state
    run.add("progress", Progress(console))
    try:
        with _signals(state, console):
            train(run)
        reason = state.interrupt_reason or state.stop_reason
        state.ended = f"stopped: {reason}" if reason else "finished"
    except NonFiniteError as error:
        state.ended = f"failed: {error}"
        raise NonFiniteError(_explain(run, error)) from error
    except SystemExit as error:  # it would end the program as if all was well
        state.ended = "failed: SystemExit"
        console.say(traceback.format_exc(), shown=False)
        ended = PartError(f"a part of the run called sys.exit({error.code!r}), which ends the whole program")
        ended.log = state.folder / run_folder.LOG
        raise ended from error
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
        _end(run, console)
    saver = _saver(run)
    return RunOutcome(run, ExitCode.STOPPED if state.interrupted else ExitCode.FINISHED, saver.newest, saver.best)


def _end(run: Run, console: Console) -> None:
    """Tell every part that the run ends, whatever another one does, and note how it ended.

    Raises:
        PartError: A part failed, and nothing had failed before.
    """
    state = run.state
    first: Exception | None = None
    for listener in run.events["run_end"]:
        try:
            fire([listener], state)
        except Exception as error:
            console.say(traceback.format_exc(), shown=False)
            if first is not None or state.failed:
                console.say(f"warning: {error}")
            else:
                first = error
    if first is not None:
        state.ended = f"failed: {type(first).__name__}"
    run_folder.note_end(state.folder, state.ended, finished=not (state.interrupted or state.failed))
    if first is not None:
        if isinstance(first, PartError):
            first.log = state.folder / run_folder.LOG
        raise first


def _saver(run: Run) -> Saver:
    saver = run.parts["saver"]
    assert isinstance(saver, Saver)
    return saver


@contextlib.contextmanager
def _signals(state: State, console: Console) -> Iterator[None]:
    """Let a first signal stop the run after its step, and a second one at once."""

    def stop(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if state.interrupted:
            raise KeyboardInterrupt(name)
        state.interrupt(f"signal {name}")
        console.say(f"{name}: finishing this step, then saving; once more stops at once")

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    try:
        before = {number: signal.signal(number, stop) for number in watched}
    except ValueError:  # not in the main thread, where Python lets nobody watch signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trouble(run: Run, error: BaseException) -> str | None:
    """Return what a person can do about a device that gave up; None if that is not what happened."""
    cause = error.__cause__ or error if isinstance(error, PartError) else error
    said = (str(cause).splitlines() or [""])[0]
    if isinstance(cause, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in said:
        what = f"the memory of {run.state.context.device} is full: {said}"
        advice = "lower data.batch_size (run.accumulate keeps as many items a step), or make the model smaller"
    elif run.recipe.run.deterministic and "deterministic" in said:
        what = f"run.deterministic = true, but torch has no such algorithm: {said}"
        advice = "set run.deterministic = false, or replace what needs it"
    else:
        return None
    newest = _saver(run).newest
    there = f"last good checkpoint: {newest}" if newest else "no checkpoint was written yet"
    return f"epoch {run.state.epoch}: {what}\n{advice}\n{there}"


def _explain(run: Run, error: NonFiniteError) -> str:
    state, saver = run.state, _saver(run)
    broken = [
        name
        for name, group in state.groups.items()
        if any(not bool(p.isfinite().all()) for p in group.parameters.values())
    ]
    rates = ", ".join(f"{name} lr {lr:.3g}" for name, lr in state.learning_rates().items() if state.groups[name].active)
    where = ", ".join(broken) or "none yet"
    if saver.newest:
        next_step = (
            f"last good checkpoint: {saver.newest}\n"
            f"go on from it with a smaller learning rate, for example: trainkit resume {saver.newest} "
            f"--set groups.{(broken or list(state.groups))[0]}.lr=…"
        )
    else:
        next_step = "no checkpoint was written yet; begin again with a smaller learning rate"
    return (
        f"epoch {state.epoch}: the training is no longer finite: {error}\n"
        f"groups that train: {rates}\n"
        f"groups with parameters that are not finite: {where}\n{next_step}"
    )
