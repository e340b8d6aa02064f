"""The journal of a run: what was asked of it while it trained, and after which step each of these took effect.

``journal.jsonl`` of the run folder has a line of JSON for each request, which a command writes, and one for each that
took effect, which the run writes:

    {"id": "5f2c…", "do": "edit", "sets": ["groups.dr.lr=1e-3"], "at": {"epoch": 40}, "by": "ann@lab", "time": "…"}
    {"id": "5f2c…", "taken": {"epoch": 40, "step": 2440}}

A resume with other settings is written down as an edit, too, and a branch begins with what its parent was asked.
A recipe and the journal of its run describe that run completely: replayed, they give the same bits
(``trainkit run --journal``). A position is a number of finished epochs and a number of finished steps; after 3 epochs
of 10 steps, it is (3, 30) once the third epoch is closed, and (2, 30) before.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

from trainkit.checkpoint.folder import Position
from trainkit.errors import RecipeError
from trainkit.files.reading import read_small
from trainkit.files.writing import append_line

NAME = "journal.jsonl"
MOST_BYTES = 1 << 24
Action = Literal["edit", "save", "stop", "interrupt", "picture"]
OnExtend = Literal["stretch", "hold", "restart"]
REPLAYED = ("edit", "stop")
"""Actions that change what is trained; the others do not, and are not replayed."""

_LOGGER = logging.getLogger("trainkit")


@attrs.frozen
class Request:
    """What is asked of a run.

    Attributes:
        id: Its name in the journal.
        do: "edit": go on with other settings. "stop": close the epoch, and end. "interrupt": end after this step, so
            that a resume goes on. "save": write a checkpoint. "picture": make pictures at the end of the epoch.
        sets: Of an edit: the settings, in the form ``a.b=c``.
        on_extend: Of an edit: how learning rates continue.
        now: Of an edit: after the next step, not at the end of the epoch.
        epoch: After how many finished epochs; None: the next time.
        step: Of a replayed request: after how many finished steps.
        taken: Where it took effect; None: it has not yet.
        refused: Why it did not take effect; "": it was not refused.
        by: Who asked.
        time: When (UTC, ISO 8601).
    """

    id: str
    do: Action
    sets: tuple[str, ...] = ()
    on_extend: OnExtend | None = None
    now: bool = False
    epoch: int | None = None
    step: int | None = None
    taken: Position | None = None
    refused: str = ""
    by: str = ""
    time: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the run has still to take it."""
        return self.taken is None and not self.refused

    @property
    def in_words(self) -> str:
        """What is asked for, and by whom."""
        what = f"edit {' '.join(self.sets)}" if self.do == "edit" else self.do
        return f"{what}, asked by {self.by}" if self.by else what


def ask(folder: Path, do: Action, **more: Any) -> Request:
    """Write a request into the journal of a run.

    Args:
        folder: The run folder.
        do: What to do.
        more: Further attributes of the `Request`.

    Raises:
        OSError: The journal cannot be written.
    """
    request = drafted(do, **more)
    _append(folder, request)
    return request


def drafted(do: Action, **more: Any) -> Request:
    """Return a request of this user, which stands in no journal yet.

    Args:
        do: What to do.
        more: Further attributes of the `Request`.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a name for its user
        user = "unknown"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Request(secrets.token_hex(6), do, by=f"{user}@{platform.node()}", time=now, **more)


def write_taken(folder: Path, request: Request) -> None:
    """Write a request that has taken effect into a journal."""
    assert request.taken is not None
    _append(folder, request)
    note_taken(folder, request, request.taken)


def note_taken(folder: Path, request: Request, position: Position) -> None:
    """Record where a request took effect."""
    taken = {"epoch": position.epoch, "step": position.step}
    append_line(folder / NAME, json.dumps({"id": request.id, "taken": taken}))


def note_refused(folder: Path, request: Request, why: str) -> None:
    """Record that a request was refused."""
    append_line(folder / NAME, json.dumps({"id": request.id, "refused": why}))


def read(folder: Path) -> list[Request]:
    """Return the requests of a run's journal in order. What cannot be read of it is named in a warning."""
    found, problem = read_readable(folder)
    if problem:
        _LOGGER.warning("%s/%s", folder, problem)
    return found


def read_readable(folder: Path) -> tuple[list[Request], str]:
    """Return the requests of a run's journal in order, and what cannot be read of it, in words; "": all can."""
    path = folder / NAME
    if not os.path.lexists(path):
        return [], ""
    try:
        lines = read_small(path, "the journal of a run", MOST_BYTES).split(b"\n")
    except (OSError, ValueError) as error:
        return [], f"{NAME} cannot be read, so what is asked there is left out: {error}"
    found: dict[str, Request] = {}
    damaged = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            _take_in(json.loads(line), found)
        except (ValueError, TypeError, KeyError, RecursionError):
            if number < len(lines):  # the last one may be still being written
                damaged.append(str(number))
    problem = f"{NAME}: line {', '.join(damaged[:8])} cannot be read, and is left out" if damaged else ""
    return list(found.values()), problem


def all_to_replay(path: Path) -> list[Request]:
    """Return the requests of a journal that was written to be repeated (`write_replay`), as `to_replay` returns them.

    Raises:
        RecipeError: A line of it cannot be read.
    """
    return [each for each in _whole(path) if each.step is not None and each.do in REPLAYED]


def to_replay(path: Path) -> list[Request]:
    """Return what a journal says to repeat: the edits and stops that took effect, each for the same place.

    Args:
        path: A journal, or the run folder that holds it.

    Raises:
        RecipeError: There is no journal, or a line of it cannot be read.
    """
    return [
        attrs.evolve(each, epoch=each.taken.epoch, step=each.taken.step, taken=None)
        for each in _whole(path / NAME if path.is_dir() else path)
        if each.taken is not None and not each.refused and each.do in REPLAYED
    ]


def _whole(file: Path) -> list[Request]:
    """Return all requests of a journal.

    Raises:
        RecipeError: There is no journal, or a line of it cannot be read.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise RecipeError(f"there is no journal at {file}: {error}") from error
    found: dict[str, Request] = {}
    for number, line in enumerate(lines, start=1):
        try:
            _take_in(json.loads(line), found)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecipeError(
                f"{file}: line {number} is no line of a journal, so the run cannot be repeated: {line[:80]}"
            ) from error
    return list(found.values())


def inherit(folder: Path, parent: Path, until: Position, applied: Iterable[str]) -> None:
    """Write what led a run's parent to the checkpoint that the run begins from into the run's journal.

    Args:
        folder: The new run's folder.
        parent: The run folder of its parent.
        until: The position of the checkpoint.
        applied: Ids of the edits that its recipe has.
    """
    known = set(applied)
    for request in read(parent):
        if request.taken is not None and (request.id in known or (request.do == "stop" and request.taken < until)):
            write_taken(folder, request)


def write_replay(folder: Path, requests: Iterable[Request]) -> None:
    """Write requests that are to be repeated into the journal of a new run."""
    for request in requests:
        _append(folder, request)


def edits_at(requests: Sequence[Request], position: Position, applied: Iterable[str]) -> list[Request]:
    """Return the edits that took effect at a position, and that a checkpoint of it does not have yet.

    Args:
        requests: The journal.
        position: The position of the checkpoint.
        applied: Ids of the edits that its recipe has.
    """
    known = set(applied)
    return [
        each
        for each in requests
        if each.do == "edit" and each.taken == position and not each.refused and each.id not in known
    ]


def sets_of(edits: Iterable[Request]) -> Iterator[str]:
    """Yield the settings of edits, in order."""
    for edit in edits:
        yield from edit.sets


def _append(folder: Path, request: Request) -> None:
    line: dict[str, Any] = {"id": request.id, "do": request.do}
    line |= {"sets": list(request.sets)} if request.sets else {}
    line |= {"on_extend": request.on_extend} if request.on_extend else {}
    line |= {"now": True} if request.now else {}
    place = {"epoch": request.epoch, "step": request.step}
    at = {name: number for name, number in place.items() if number is not None}
    line |= {"at": at} if at else {}
    append_line(folder / NAME, json.dumps(line | {"by": request.by, "time": request.time}))


def _take_in(line: Any, found: dict[str, Request]) -> None:
    """Add a line to the requests.

    Raises:
        ValueError, TypeError, KeyError: It is no line of a journal.
    """
    name = _of(str, line["id"])
    if "taken" in line:
        found[name] = attrs.evolve(found[name], taken=_position(line["taken"]))
    elif "refused" in line:
        found[name] = attrs.evolve(found[name], refused=_of(str, line["refused"]) or "refused")
    else:
        at = _of(Mapping, line.get("at", {}))
        sets = tuple(_of(str, each) for each in _of(list, line.get("sets", [])))
        on_extend = line.get("on_extend")
        if line["do"] not in get_args(Action) or on_extend not in (None, *get_args(OnExtend)):
            raise ValueError("an unknown action")
        numbers = {key: _of(int, at[key]) for key in ("epoch", "step") if key in at}
        more = {key: _of(str, line.get(key, "")) for key in ("by", "time")}
        now = _of(bool, line.get("now", False))
        found[name] = Request(name, line["do"], sets, on_extend, now, **numbers, **more)


def _position(value: Any) -> Position:
    return Position(_of(int, value["step"]), _of(int, value["epoch"]))


def _of(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
