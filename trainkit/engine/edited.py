"""Lets a run go on with other settings after an edit: it is resumed from the checkpoint that the edit made it write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainkit.engine import journal
from trainkit.engine.every_run.requests import EDIT, Requests
from trainkit.engine.resume import resume
from trainkit.engine.start import NOTHING_MORE, ExitCode, Extra, Report, RunOutcome, no_report
from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from trainkit.console import Console
    from trainkit.engine.journal import Request
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.structure import AllowCode


def is_edited(outcome: RunOutcome | ExitCode) -> bool:
    """Return whether a run ended only to go on with other settings."""
    if not isinstance(outcome, RunOutcome) or outcome.code is not ExitCode.STOPPED or outcome.signal is not None:
        return False
    requests = outcome.run.parts.get("requests")
    reason = outcome.run.state.interrupt_reason or ""
    return isinstance(requests, Requests) and bool(requests.edits) and reason.startswith(f"{EDIT} ")


def reported_unless_edited(report: Report) -> Report:
    """Return a report that says nothing of a run that only goes on with other settings."""

    def reported(outcome: RunOutcome, console: Console) -> None:
        if not is_edited(outcome):
            report(outcome, console)

    return reported


def with_edits(
    trained: Callable[[Report, Extra], RunOutcome | ExitCode],
    console: Console,
    *,
    allow_code: AllowCode,
    report: Report = no_report,
    extra: Extra = NOTHING_MORE,
) -> RunOutcome | ExitCode:
    """Train a run to its end, through all edits.

    Args:
        trained: Starts or resumes the run with further live parts, reports how it ended, and returns that.
        console: Prints the messages.
        allow_code: Which classes that the recipe names as ``module:Class`` may be imported.
        report: Called with the outcome at the end.
        extra: Further live parts.

    Raises:
        TrainkitError: The run cannot start, or failed.
    """
    report, extra = reported_unless_edited(report), _editable(extra)
    outcome = trained(report, extra)
    while is_edited(outcome):
        assert isinstance(outcome, RunOutcome)
        folder, requests = outcome.run.state.folder, outcome.run.parts["requests"]
        assert isinstance(requests, Requests)
        edits = list(requests.edits)
        del outcome, requests  # the model and the data of the run, before they are built anew
        try:
            outcome = resume(folder, console, allow_code=allow_code, report=report, extra=extra)
        except RecipeError as error:  # nothing was trained yet
            console.say(f"the run goes on without the edit, which is refused: {error}")
            for edit in edits:
                journal.note_refused(folder, edit, str(error))
            outcome = resume(folder, console, allow_code=allow_code, report=report, extra=extra)
    return outcome


def _editable(extra: Extra) -> Extra:
    """Return further live parts of a run that is resumed after an edit. What was asked meanwhile is still asked."""
    starts: list[str] = []

    def allow(run: LiveRun) -> object:
        requests = run.parts["requests"]
        assert isinstance(requests, Requests)
        requests.can_go_on = True
        starts.append(requests.since)
        requests.since = starts[0]
        return object()

    return {**extra, "editable": allow}


def replaying(requests: Sequence[Request]) -> Extra:
    """Return what makes a new run repeat at the same places what an earlier one was asked (`journal.to_replay`)."""

    def write(run: LiveRun) -> object:
        journal.write_replay(run.state.folder, requests)
        return object()

    return {"replay": write} if requests else NOTHING_MORE
