"""What happened to a run: where it began, what was asked of it, how its starts ended, and what branched off.

after       what                              by          time (UTC)
the start   started                                       2026-11-26 10:00
3 epochs    edit groups.dr.lr=1e-3            ann@lab     2026-11-26 10:04
4 epochs    1a2b3c4d branched off                         2026-11-26 10:06
5 epochs    finished                                      2026-11-26 10:09
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trainkit.checkpoint.folder import Position
from trainkit.engine.finding import run_folders_below, short_id
from trainkit.engine.identity import parsed_time
from trainkit.engine.journal import Request
from trainkit.runs.record import RunRecord
from trainkit.words import after_epochs, number_of, some_of

_MOST_SETS = 3  # settings of edits that one line of a list shows


_Order = tuple[str, int]
"""When something happened, and its place among what happened in the same second."""


class Event(NamedTuple):
    """Something that happened to a run.

    Attributes:
        after: After how many epochs, or steps if it was inside an epoch, in words; "": unknown, or not yet.
        what: What happened.
        by: Who asked for it; "": nobody did, or it is not known.
        time: When (UTC), for people; "": unknown.
        epochs: Where it is on an axis of finished epochs; None: nowhere.
    """

    after: str
    what: str
    by: str = ""
    time: str = ""
    epochs: float | None = None


def place_in_words(run: RunRecord, position: Position) -> str:
    """Return a position of a run in words: by finished epochs, or by steps if it is inside an epoch."""
    if position.step == 0 or _is_closed(run, position):
        return after_epochs(position.epoch)
    return f"after {number_of(position.step, 'step')}"


def requests_in_words(run: RunRecord) -> Iterator[str]:
    """Yield what was asked of a run while it trained, in a few short lines."""
    edits = [each for each in run.journal if each.do == "edit" and each.taken is not None]
    shown = edits[-_MOST_SETS:]
    if earlier := len(edits) - len(shown):
        yield f"{number_of(earlier, 'earlier edit')}, shown by trainkit report"
    for each in shown:
        assert each.taken is not None
        yield f"edited {place_in_words(run, each.taken)}: {some_of(each.sets, _MOST_SETS)}"
    others = [each for each in run.journal if each.do != "edit" and each.taken is not None]
    counts = {do: sum(each.do == do for each in others) for do in dict.fromkeys(each.do for each in others)}
    if counts:
        yield "asked to " + ", ".join(
            f"{do}{f' ({number} times)' if number > 1 else ''}" for do, number in counts.items()
        )
    for each in run.journal:
        if each.refused:
            yield f"refused: {_asked(each)}: {each.refused.splitlines()[0]}"
        elif each.is_open:
            yield f"asked, and not done yet: {_asked(each)}"


def events(run: RunRecord) -> list[Event]:
    """Return what happened to a run, in the order in which it happened; what has not happened yet comes last."""
    found = [*_starts(run), *_requests(run), *_branches(run)]
    return [event for _, event in sorted(found, key=lambda each: each[0])]


def _starts(run: RunRecord) -> Iterator[tuple[_Order, Event]]:
    by_edit = {f"stopped: {each.in_words}" for each in run.journal if each.do == "edit"}
    continues = False  # whether a start only continues with an edit, which is an event of its own
    for number, start in enumerate(run.starts):
        time, ended_at = str(start.get("time") or ""), str(start.get("ended_at") or "")
        if number == 0 and run.parent is not None:
            whence = short_id(run.parent.run) if run.parent.run else run.parent.checkpoint
            when = after_epochs(run.parent.epoch)
            yield (
                (_sortable(time), 0),
                Event(when, f"branched off from {whence}", "", when_in_words(time), run.parent.epoch),
            )
        elif number == 0:
            yield (_sortable(time), 0), Event("at the start", "started", "", when_in_words(time), 0)
        elif not continues:
            yield (_sortable(time), 3), Event(_begin_in_words(run, start), "resumed", "", when_in_words(time))
        ended = start.get("ended")
        continues = ended in by_edit
        if isinstance(ended, str) and not continues:
            after = after_epochs(run.values.epochs) if number == len(run.starts) - 1 else ""
            yield (_sortable(ended_at or time), 2), Event(after, ended, "", when_in_words(ended_at))


def _begin_in_words(run: RunRecord, start: Mapping[str, Any]) -> str:
    """Return after how much a start began; "" if that is not recorded, as by earlier versions."""
    epochs, steps = start.get("finished_epochs"), start.get("finished_steps")
    if not isinstance(epochs, int) or not isinstance(steps, int):
        return ""
    return place_in_words(run, Position(steps, epochs))


def _requests(run: RunRecord) -> Iterator[tuple[_Order, Event]]:
    for each in run.journal:
        if each.taken is not None:
            after, epochs = place_in_words(run, each.taken), _on_axis(run, each.taken)
            yield (_sortable(each.time), 1), Event(after, _asked(each), each.by, when_in_words(each.time), epochs)
        elif each.refused:
            what = f"{_asked(each)}: refused: {each.refused}"
            yield (_sortable(each.time), 1), Event("", what, each.by, when_in_words(each.time))
        else:
            yield ("~", 1), Event("", f"{_asked(each)}: not done yet", each.by, when_in_words(each.time))


def _branches(run: RunRecord) -> Iterator[tuple[_Order, Event]]:
    """Yield the runs that began from this one and lie beside it."""
    for folder in run_folders_below(run.folder.resolve().parent):
        other = RunRecord(folder)
        if other.parent is not None and other.parent.run == run.id and other.id != run.id:
            origin = other.parent
            after = place_in_words(run, Position(origin.step, origin.epoch))
            time = other.identity.created
            yield (
                (_sortable(time), 4),
                Event(after, f"{short_id(other.id)} branched off", "", when_in_words(time), origin.epoch),
            )


def _asked(request: Request) -> str:
    words = [f"edit {' '.join(request.sets)}" if request.do == "edit" else request.do]
    words += [f"--on-extend {request.on_extend}"] if request.on_extend else []
    return " ".join(words)


def _is_closed(run: RunRecord, position: Position) -> bool:
    """Return whether a position is at the end of an epoch."""
    return any(not place.inside and place.steps == position.step for place, _ in run.values.lines)


def _on_axis(run: RunRecord, position: Position) -> float:
    if position.step == 0 or _is_closed(run, position) or not run.values.epochs:
        return float(position.epoch)
    return position.step * run.values.epochs / run.values.steps


def _sortable(time: str) -> str:
    known = parsed_time(time)
    return "" if known is None else known.isoformat()


def when_in_words(time: str) -> str:
    """Return a recorded time for people (UTC); "" if it is none."""
    known = parsed_time(time)
    return "" if known is None else f"{known:%Y-%m-%d %H:%M:%S}"
