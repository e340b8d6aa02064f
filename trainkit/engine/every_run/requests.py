"""Takes what is asked of a run while it trains: other settings, a stop, a checkpoint, pictures."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from trainkit.checkpoint.folder import Position
from trainkit.engine import journal
from trainkit.engine.journal import Request
from trainkit.events import Live

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.engine.live_run import LiveRun
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")
_BETWEEN_LOOKS_SECONDS = 0.5
_CANNOT_GO_ON = "the run is one of a search or a test, whose settings cannot change meanwhile"
EDIT = "edit"
"""How the reason for an interruption begins after which the run goes on with other settings."""


class Requests(Live):
    """Part of every run: it looks into the journal between steps, and lets take effect what is asked for there.

    An edit interrupts the run, with a checkpoint, and the run is resumed from it with the other settings
    (`trainkit.engine.edited`): what a resume can change, and what it says and asks about a change, an edit can, too.

    Args:
        folder: The run folder.

    Attributes:
        since: The time from which on requests are meant for this process, also if it builds the run anew after an edit.
        can_go_on: Whether who started the run resumes it after an edit. A search, or a test, does not: an edit is
            refused there.
        edits: The edits for which the run is being interrupted.
        applied: Ids of the edits that the recipe of the run has; each checkpoint says so, beside the run's id.
        by_resume: What the resume has changed with which the run goes on. It is written down when the run has got as
            far as its first checkpoint, since a start that fails before that is taken back.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self._file = folder / journal.NAME
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
        self._size = -1
        self._next_look = 0.0
        self._open: list[Request] = []
        self.can_go_on = False
        self.edits: list[Request] = []
        self.applied: list[str] = []
        self.by_resume: Request | None = None

    def on_run_start(self, state: State) -> None:
        """Read what has been asked for. A stop or a save that was asked of an earlier start is for nobody any more."""
        self._look(state)
        for request in [each for each in self._open if self._is_late(each)]:
            self._open.remove(request)
            journal.note_refused(state.folder, request, "the run had ended when it was asked")
            _LOGGER.info("left out, since the run had ended when it was asked: %s", request.in_words)

    def on_step_end(self, state: State) -> None:
        """Take what is due after this step, looking into the journal from time to time."""
        if time.monotonic() >= self._next_look:
            self._look(state)
        if self._open:
            self._take(state, Position(state.step, state.epoch), closed=False)

    def on_epoch_end(self, state: State) -> None:
        """Take what is due at the end of this epoch."""
        self._look(state)
        if self._open:
            self._take(state, Position(state.step, state.epoch + 1), closed=True)

    def on_checkpoint(self, state: State) -> None:
        """Write down what the resume has changed, before the first checkpoint has it."""
        if self.by_resume is not None:
            journal.write_taken(state.folder, self.by_resume)
            self.applied.append(self.by_resume.id)
            self.by_resume = None

    def _look(self, state: State) -> None:
        """Read the journal if it has grown."""
        self._next_look = time.monotonic() + _BETWEEN_LOOKS_SECONDS
        try:
            size = self._file.stat().st_size
        except OSError:
            return  # nothing was asked yet
        if size == self._size:
            return
        self._size = size
        here = Position(state.step, state.epoch)
        self._open = [each for each in journal.read(state.folder) if self._is_to_come(each, here)]

    def _is_to_come(self, request: Request, here: Position) -> bool:
        """Return whether a request has still to take effect; it has again if the run was resumed from before it did."""
        if request.refused or request.id in self.applied or request.id in {each.id for each in self.edits}:
            return False
        return request.taken is None or (request.do in journal.REPLAYED and request.taken > here)

    def _is_late(self, request: Request) -> bool:
        return request.do != "edit" and request.step is None and request.time < self.since

    def _take(self, state: State, here: Position, *, closed: bool) -> None:
        """Let everything take effect that is due.

        Args:
            state: The state of the run.
            here: How far the run is.
            closed: Whether an epoch ends here.
        """
        if state.interrupted:
            return  # the run ends here for another reason, and what is open waits for its resume
        due = [each for each in self._open if _is_due(each, here, closed=closed)]
        if not due:
            return
        for request in due:
            if request.do == "edit" and not self.can_go_on:
                journal.note_refused(state.folder, request, _CANNOT_GO_ON)
            elif request.taken != here:
                journal.note_taken(state.folder, request, here)  # if that fails, the request stays open
            self._open.remove(request)
            if request.do == "edit" and not self.can_go_on:
                _LOGGER.warning("%s: refused, since %s", request.in_words, _CANNOT_GO_ON)
                continue
            _LOGGER.info("%s", request.in_words)
            if request.do == "edit":
                self.edits.append(request)
            elif request.do == "stop":
                state.stop(request.in_words)
            elif request.do == "interrupt":
                state.interrupt(request.in_words)
            elif request.do == "save":
                state.save(request.in_words)
            else:
                state.show_pictures(request.in_words)
        if self.edits and not state.interrupted:
            state.interrupt("; ".join(each.in_words for each in self.edits))


def edits_of(run: LiveRun) -> list[str]:
    """Return the ids of the edits that the recipe of a run has."""
    requests = run.parts.get("requests")  # which only the first process of a run has
    return list(requests.applied) if isinstance(requests, Requests) else []


def _is_due(request: Request, here: Position, *, closed: bool) -> bool:
    if request.taken is not None:
        return request.taken == here
    if request.step is not None:
        return (request.step, request.epoch) == here
    if request.do != "edit":
        return not closed  # after a step, so that all that follows from it still does in this epoch
    if request.epoch is not None:
        return closed and here.epoch >= request.epoch
    return closed or request.now
