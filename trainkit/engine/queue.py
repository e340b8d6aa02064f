"""Runs several recipes in turn: starts, resumes or skips each."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainkit.engine import run_folder
from trainkit.engine.resume import resume
from trainkit.engine.start import ExitCode, Report, RunOutcome, finished_before, start
from trainkit.engine.weight_search import run_with_chosen_weights
from trainkit.errors import TrainkitError
from trainkit.recipe.inputs import refuse_missing_inputs
from trainkit.recipe.weight_search import searched

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.recipe.resolve import Resolved

_FROM_BEST_TO_WORST = (ExitCode.FINISHED, ExitCode.DOUBTFUL, ExitCode.FAILED, ExitCode.STOPPED)


class QueueResult(NamedTuple):
    """What happened to one recipe.

    Attributes:
        name: Name of the run.
        what: "finished", "skipped: …", "stopped: …" or "failed: …", and whether the result is doubtful.
        best: The best monitored value; None: there is none.
        seconds: How long it took this time.
        folder: The run folder; None: there is none.
    """

    name: str
    what: str
    best: float | None
    seconds: float
    folder: Path | None


def run_all(
    recipes: Sequence[Resolved],
    console: Console,
    *,
    continue_unfinished: bool,
    report: Report,
) -> ExitCode:
    """Run recipes one after the other; if one fails, the others are still run.

    Args:
        recipes: The recipes to run.
        console: Prints the messages.
        continue_unfinished: Skip recipes whose run is finished already, and resume runs that were started before.
        report: Prints how a run ended.

    Returns:
        The exit code of the command line: STOPPED if a run was interrupted; else FAILED if one failed; else DOUBTFUL
        if the result of one is doubtful, also of one that was finished before.
    """
    done: list[QueueResult] = []
    code = ExitCode.FINISHED
    for number, resolved in enumerate(recipes, start=1):
        name = resolved.recipe.run.name
        if len(recipes) > 1:
            console.say(f"\nrun {number} of {len(recipes)}: {name}")
        began = time.perf_counter()
        try:
            outcome, folder = _run_one(resolved, console, continue_unfinished, report)
        except Exception as error:
            if len(recipes) == 1:
                raise
            message = str(error) if isinstance(error, TrainkitError) else traceback.format_exc()
            console.say(f"failed: {message}")
            done.append(
                QueueResult(
                    name,
                    f"failed: {(str(error).splitlines() or [type(error).__name__])[0]}",
                    None,
                    time.perf_counter() - began,
                    None,
                )
            )
            code = ExitCode.FAILED
            continue
        if not isinstance(outcome, RunOutcome):
            what = _with_doubts("skipped: finished already", outcome is ExitCode.DOUBTFUL)
            done.append(QueueResult(name, what, None, 0.0, folder))
            code = _worse(code, outcome)
            continue
        state = outcome.run.state
        best = outcome.best[0] if outcome.best else None
        what = _with_doubts(state.ended, bool(state.doubts))
        done.append(QueueResult(name, what, best, time.perf_counter() - began, state.folder))
        code = _worse(code, outcome.code)
        if outcome.signal is not None and number < len(recipes):
            code = _worse(code, ExitCode.STOPPED)
            break
        if outcome.code is ExitCode.STOPPED:
            break
    if len(recipes) > 1:
        for line in _table(done, [each.recipe.run.name for each in recipes]):
            console.say(line)
    return code


def worst_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code of several runs together."""
    return max(codes, key=_FROM_BEST_TO_WORST.index)


def _worse(one: ExitCode, other: ExitCode) -> ExitCode:
    return worst_of((one, other))


def _with_doubts(what: str, is_doubtful: bool) -> str:
    return f"{what}, but doubtful" if is_doubtful else what


def _run_one(
    resolved: Resolved, console: Console, continue_unfinished: bool, report: Report
) -> tuple[RunOutcome | ExitCode, Path | None]:
    """Start or resume a run; return how it ended, or the code of one that had ended, and an earlier start's folder."""
    if searched(resolved.recipe):
        return run_with_chosen_weights(resolved, console, continue_unfinished=continue_unfinished, report=report)
    if not continue_unfinished:
        refuse_missing_inputs([resolved])
        return start(resolved, console, report=report), None
    with contextlib.ExitStack() as choosing:  # until the run folder is locked, no other process may choose
        choosing.enter_context(run_folder.choosing(resolved))
        before = run_folder.earlier_run(resolved)
        if before is None:
            refuse_missing_inputs([resolved])
            return start(resolved, console, locked=choosing.close, report=report), None
        if run_folder.is_finished(before):
            console.say(f"{before}: finished already")
            return finished_before(run_folder.doubts(before), console), before
        # Anybody may have put the checkpoint there, so it may only name code that this recipe names.
        named = [used.use for used in resolved.used if ":" in used.use]
        resumed = resume(before, console, recipe=resolved, allow_code=named, locked=choosing.close, report=report)
        return resumed, before


def _table(done: Sequence[QueueResult], names: Sequence[str]) -> Iterator[str]:
    width = max(len(name) for name in names)
    yield ""
    yield f"{'run':{width}}  {'took':>9}  {'best':>10}  what"
    for name, what, best, seconds, folder in done:
        took = str(timedelta(seconds=round(seconds)))
        shown = "-" if best is None else f"{best:.5g}"
        yield f"{name:{width}}  {took:>9}  {shown:>10}  {what}" + (f"  ({folder})" if folder else "")
    for name in names[len(done) :]:
        yield f"{name:{width}}  {'-':>9}  {'-':>10}  not started"
