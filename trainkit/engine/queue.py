"""Runs several recipes in turn: starts, resumes or skips each."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from trainkit.engine import run_folder
from trainkit.engine.edited import replaying, with_edits
from trainkit.engine.identity import newest_first
from trainkit.engine.launched import NotedResult, note_result, noted_results, starts_anew_after_failures
from trainkit.engine.queue_table import SWEEP_FILE, QueueResult, table, write_sweeps
from trainkit.engine.resume import resume
from trainkit.engine.start import NOTHING_MORE, ExitCode, Report, RunOutcome, finished_before, start
from trainkit.engine.trained_checkpoints import best_of
from trainkit.engine.weight_search import run_with_chosen_weights
from trainkit.errors import RecipeError, TrainkitError
from trainkit.processes.meeting import meeting
from trainkit.recipe.inputs import refuse_missing_inputs
from trainkit.recipe.references import escaped
from trainkit.recipe.resolve import changed
from trainkit.recipe.weight_search import searched

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.journal import Request
    from trainkit.engine.start import Extra
    from trainkit.recipe.resolve import Resolved

_LOGGER = logging.getLogger("trainkit")
_FROM_BEST_TO_WORST = (ExitCode.FINISHED, ExitCode.DOUBTFUL, ExitCode.FAILED, ExitCode.STOPPED)


def run_all(
    recipes: Sequence[Resolved],
    console: Console,
    *,
    continue_unfinished: bool,
    report: Report,
    replay: Sequence[Request] = (),
) -> ExitCode:
    """Run recipes one after the other; if one fails, the others are still run.

    Args:
        recipes: The recipes to run.
        console: Prints the messages.
        continue_unfinished: Skip recipes whose run is finished already, and resume runs that were started before.
        report: Prints how a run ended.
        replay: Edits and stops of an earlier run that are repeated, in a queue of one recipe.

    Returns:
        The exit code of the command line: STOPPED if a run was interrupted; else FAILED if one failed; else DOUBTFUL
        if the result of one is doubtful, also of one that was finished before.

    Raises:
        Exception: The only run failed; or one of several processes, which have to end with it. The launcher then starts
            them anew for the runs after it.
    """
    done: list[QueueResult] = []
    code = ExitCode.FINISHED
    is_queue = len(recipes) > 1
    before_this_start = noted_results() if is_queue else {}
    if continue_unfinished:
        recipes = [_under_earlier_name(each, recipes) for each in recipes]
    _keep(done, recipes)
    for number, resolved in enumerate(recipes, start=1):
        if is_queue:
            console.say(f"\nrun {number} of {len(recipes)}: {resolved.recipe.run.name}")
        began = time.perf_counter()
        place = str(resolved.recipe.run.dir / resolved.recipe.run.name)
        under_way = NotedResult(place, "failed: its processes died", time.time(), failed=True, ends_processes=is_queue)
        noted = before_this_start.get(place)
        if noted is not None and noted.failed:  # before the launcher started these processes in place of others
            done.append(QueueResult(resolved, noted.what, seconds=noted.seconds))
            code = _worse(code, ExitCode.FAILED)
            _keep(done, recipes)
            continue
        note_result(under_way)
        try:
            outcome, folder = run_one(
                resolved, console, continue_unfinished=continue_unfinished, report=report, replay=replay
            )
        except Exception as error:
            what = f"failed: {(str(error).splitlines() or [type(error).__name__])[0]}"
            seconds = time.perf_counter() - began
            ends_processes = meeting().is_busy and is_queue  # the other ones of that run cannot go on
            note_result(attrs.evolve(under_way, what=what, seconds=seconds, ends_processes=ends_processes))
            if not is_queue or (ends_processes and starts_anew_after_failures()):
                raise
            if ends_processes:
                _end_without_the_others([*done, QueueResult(resolved, what, seconds=seconds)], recipes, console)
                raise
            console.say(f"failed: {error if isinstance(error, TrainkitError) else traceback.format_exc()}")
            done.append(QueueResult(resolved, what, seconds=seconds))
            code = _worse(code, ExitCode.FAILED)
            _keep(done, recipes)
            continue
        if not isinstance(outcome, RunOutcome):
            what = _with_doubts("skipped: finished already", outcome is ExitCode.DOUBTFUL)
            note_result(noted or attrs.evolve(under_way, what=what, failed=False, ends_processes=False))
            best = None if folder is None else best_of(folder)
            what, seconds = (what, 0.0) if noted is None else (noted.what, noted.seconds)
            done.append(QueueResult(resolved, what, best, seconds, folder))
            code = _worse(code, outcome)
            _keep(done, recipes)
            continue
        state = outcome.run.state
        what, seconds = _with_doubts(state.ended, bool(state.doubts)), time.perf_counter() - began
        done.append(QueueResult(resolved, what, outcome.best, seconds, state.folder))
        note_result(attrs.evolve(under_way, what=what, seconds=seconds, failed=False, ends_processes=False))
        code = _worse(code, outcome.code)
        _keep(done, recipes)
        if outcome.signal is not None and number < len(recipes):
            code = _worse(code, ExitCode.STOPPED)
            break
        if outcome.code is ExitCode.STOPPED:
            break
    if is_queue:
        for line in table(done, recipes):
            console.say(line)
    return code


def _end_without_the_others(done: Sequence[QueueResult], recipes: Sequence[Resolved], console: Console) -> None:
    """Print and write what there is of a queue that ends because its processes do."""
    _keep(done, recipes)
    for line in table(done, recipes):
        console.say(line)
    if len(done) < len(recipes):
        console.say(
            "the runs after this one are not started, because its processes have ended; start the command again with "
            "--continue"
        )


def _keep(done: Sequence[QueueResult], recipes: Sequence[Resolved]) -> None:
    try:
        write_sweeps(done, recipes)
    except OSError as error:
        _LOGGER.warning("%s cannot be written: %s", SWEEP_FILE, error.strerror or error)


def _under_earlier_name(resolved: Resolved, recipes: Sequence[Resolved]) -> Resolved:
    """Return a recipe under the name of its earlier run, if that had another one.

    Names tell what differs within a sweep, or among recipe files of one name: so they change when further keys or files
    are added.

    Args:
        resolved: The recipe.
        recipes: All recipes of the queue, whose names are not those of earlier points.
    """
    if run_folder.earlier_run(resolved) is not None:
        return resolved
    if resolved.point is None:
        names: Iterable[str] = resolved.other_names
    else:
        present = {each.recipe.run.name for each in recipes}
        earlier = (folder.parent.name for folder in newest_first(resolved.point.folder.glob("*/*")))
        names = (name for name in dict.fromkeys(earlier) if name not in present)
    for name in names:
        renamed = attrs.evolve(changed(resolved, {"run": {"name": escaped(name)}}), point=resolved.point)
        if run_folder.earlier_run(renamed) is not None:
            return renamed
    return resolved


def worst_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code of several runs together."""
    return max(codes, key=_FROM_BEST_TO_WORST.index)


def _worse(one: ExitCode, other: ExitCode) -> ExitCode:
    return worst_of((one, other))


def _with_doubts(what: str, is_doubtful: bool) -> str:
    return f"{what}, but doubtful" if is_doubtful else what


def run_one(
    resolved: Resolved,
    console: Console,
    *,
    continue_unfinished: bool,
    report: Report,
    extra: Extra = NOTHING_MORE,
    replay: Sequence[Request] = (),
) -> tuple[RunOutcome | ExitCode, Path | None]:
    """Start or resume a run.

    Args:
        resolved: The recipe.
        console: Prints the messages.
        continue_unfinished: Do nothing if its run is finished already, and resume it if it was started before.
        report: Prints how it ended.
        extra: Further live parts; not for a recipe whose weights are searched.
        replay: Edits and stops of an earlier run that a new run repeats.

    Returns:
        How the run ended, or the exit code of one that had ended; and an earlier start's folder.

    Raises:
        TrainkitError: The run cannot start, or failed.
    """
    if searched(resolved.recipe):
        if meeting().place.world > 1:
            raise RecipeError('weight = "auto" is searched by one process; choose a number, or start one process')
        return run_with_chosen_weights(resolved, console, continue_unfinished=continue_unfinished, report=report)
    # Anybody may have put a checkpoint there, so it may only name code that this recipe names.
    named = [used.use for used in resolved.used if ":" in used.use]
    through_edits = partial(with_edits, console=console, allow_code=named, report=report, extra=extra)

    def anew(report: Report, extra: Extra, locked: Callable[[], None] = lambda: None) -> RunOutcome:
        refuse_missing_inputs([resolved])
        return start(resolved, console, locked=locked, report=report, extra={**extra, **replaying(replay)})

    if not continue_unfinished:
        return through_edits(anew), None
    with contextlib.ExitStack() as choosing:  # until the run folder is locked, no other process may choose
        choosing.enter_context(run_folder.choosing(resolved))
        before = run_folder.earlier_run(resolved)
        if before is None:
            if (other := run_folder.of_another_recipe(resolved)) is not None:
                console.say(f"{other[0]} is a run of another recipe, which differs in {other[1]}; a new run starts")
            return through_edits(partial(anew, locked=choosing.close)), None
        if run_folder.is_finished(before):
            console.say(f"{before}: finished already")
            if news := run_folder.compared_with(before, resolved).news:
                console.say(f"  {news}")
            return finished_before(run_folder.doubts(before), console), before
        again = partial(resume, before, console, recipe=resolved, allow_code=named, locked=choosing.close)
        return through_edits(lambda report, extra: again(report=report, extra=extra)), before
