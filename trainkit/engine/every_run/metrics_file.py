"""Writes ``metrics.jsonl``: one line of JSON per epoch, with every value under its full name.

    {"finished_epochs": 3, "step": 300, "train/loss": 0.31, "val/loss": 0.29, "lr/object": 0.001, "seconds": 2.1}

An older version wrote ``epoch`` instead, counted from 0. A line's key says how it counts, so lines of both kinds can
stand in one file; `read` returns ``finished_epochs`` for both, and a resume rewrites old lines.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.errors import PartError
from trainkit.events import Live
from trainkit.files.writing import append_line, set_aside, written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.state import State

NAME = "metrics.jsonl"

_LOGGER = logging.getLogger("trainkit")

EPOCHS = "finished_epochs"
"""The key of a line that says how many epochs were finished when it was written."""

_OLD_EPOCH = "epoch"  # of a line of an older version: of an epoch its number, counted from 0; see `_counted`

NO_VALUES = (EPOCHS, _OLD_EPOCH, "step", "seconds")
"""Keys of a line that are no values of the run."""


class MetricsFile(Live):
    """Part of every run.

    ``finished_epochs`` includes the epoch that the line is about, whose wall-clock time is ``seconds``. A line without
    ``seconds`` has the values of a split that was evaluated inside the next epoch, after ``step`` steps of the run.
    JSON has no NaN: a value that is not finite is written as null.
    """

    takes_late_values: ClassVar[bool] = True

    def on_validation_end(self, state: State) -> None:
        """Append a line with the split's values if it is evaluated inside an epoch."""
        if not state.closing:
            values = {name: value for name, value in state.metrics.items() if name.startswith(f"{state.split}/")}
            _append(state, state.epoch, values, {})

    def on_epoch_end(self, state: State) -> None:
        """Append the epoch's line, which is on the disk before the epoch's checkpoint."""
        if not state.awaits_values:
            _append(state, state.epoch + 1, state.metrics, {"seconds": round(sum(state.seconds.values()), 3)})

    def on_late_values(self, state: State) -> None:
        """Append the line of an epoch whose values have come."""
        _append(state, state.epoch, state.metrics, {"seconds": round(sum(state.seconds.values()), 3)})


def _append(state: State, epochs: int, values: Mapping[str, float], more: Mapping[str, float]) -> None:
    finite = {name: _finite(name, value) for name, value in values.items()}
    line = {EPOCHS: epochs, "step": state.step, **finite, **more}
    append_line(state.folder / NAME, json.dumps(line))


def _finite(name: str, value: Any) -> float | None:
    """Return a value, or None if it is not finite.

    Raises:
        PartError: It is no number, or its name is taken.
    """
    if name in NO_VALUES:
        raise PartError(f'state.metrics["{name}"] was set by a part of the run: a full name is "<split>/<name>"')
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise PartError(f'state.metrics["{name}"] must be a number; a part of the run set it to {value!r}') from error
    return number if math.isfinite(number) else None


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's metrics file that can be read, with their numbers and nulls alone.

    Others may have added lines or values. A number that is not finite is read as null.
    """
    return [
        {name: number(value) for name, value in line.items() if value is None or type(value) in (int, float)}
        for line in read_counted(folder)[0]
    ]


def read_counted(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines that can be read, with all that they hold, and how many cannot be read.

    The last line does not count: a process may be writing it, or was killed while it did.
    """
    parsed = [line for _, line in _parsed(folder)]
    return [line for line in parsed if line is not None], sum(line is None for line in parsed[:-1])


def number(value: Any) -> float | None:
    """Return a value of a line if it is a finite number, else None."""
    return value if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def _parsed(folder: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield each line of the file, and what it holds; None: it is damaged, or was not written to its end.

    A line of an older version is returned as this one writes it, as text and as what it holds.
    """
    path = folder / NAME
    if not path.is_file():
        return
    texts = [text for text in path.read_bytes().split(b"\n") if text]
    try:  # all at once is several times as fast
        lines = json.loads(b"[" + b",".join(texts) + b"]")
    except (ValueError, RecursionError):
        lines = []
    if len(lines) != len(texts):
        lines = [_line(text) for text in texts]
    for text, line in zip(texts, lines, strict=True):
        is_old = isinstance(line, dict) and EPOCHS not in line
        counted = _counted(line) if is_old else line
        good = isinstance(counted, dict) and type(counted.get(EPOCHS)) is int and type(counted.get("step")) is int
        yield json.dumps(counted).encode() if good and is_old else text, counted if good else None


def _counted(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a line of an older version with the number of finished epochs; None: it has no epoch.

    There, an epoch was counted from 0. A line from inside an epoch had the number of that epoch, before which as many
    were finished.
    """
    epoch = line.get(_OLD_EPOCH)
    if type(epoch) is not int:
        return None
    rest = {name: value for name, value in line.items() if name != _OLD_EPOCH}
    return {EPOCHS: epoch + ("seconds" in line), **rest}


def _line(text: bytes) -> Any:
    """Return what a line holds; None: it is no JSON."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None


def _is_before(line: Mapping[str, Any], epochs: int, evaluated_step: int) -> bool:
    if "seconds" in line:
        return bool(line[EPOCHS] <= epochs)
    return bool(line[EPOCHS] < epochs or line["step"] <= evaluated_step)


def cut_back(folder: Path, epochs: int, evaluated_step: int, into: Path | None = None) -> bool:
    """Keep only the lines that were written before a checkpoint; return whether there were later ones.

    Lines of an older version are rewritten, so that all lines count in one way. If a line is damaged that a finished
    epoch may have written, the file is also kept as it was, under another name, and a message says so. The last line of
    a process that was killed is no such line if it has no end.

    Args:
        folder: The run folder.
        epochs: Number of finished epochs in the checkpoint from which the run is resumed.
        evaluated_step: Number of finished steps at the checkpoint's last evaluation.
        into: Another run folder to write the lines to; None: the same folder.
    """
    path, target = folder / NAME, (into or folder) / NAME
    kept: list[bytes] = []
    epochs_kept: set[int] = set()
    damaged: list[int] = []
    is_cut = False
    for number, (text, line) in enumerate(_parsed(folder), start=1):
        if line is None:
            damaged.append(number)
        elif _is_before(line, epochs, evaluated_step):
            kept.append(text + b"\n")
            if "seconds" in line:
                epochs_kept.add(line[EPOCHS])
        else:
            is_cut = True
    missing = sorted(set(range(1, epochs + 1)) - epochs_kept)
    if damaged and (missing or damaged[0] <= len(kept)):
        where = f"{path}: line {', '.join(map(str, damaged[:8]))} cannot be read"
        lost = f"; the values of epoch {', '.join(map(str, missing[:8]))} are lost" if missing else ""
        if target.parent.samefile(folder):
            where += f"; the file is kept as {set_aside(path).name}, and the run continues with the lines that are good"
        _LOGGER.warning("%s%s", where, lost)
    elif missing:
        _LOGGER.warning("%s has no line of epoch %s", path, ", ".join(map(str, missing[:8])))
    with written_whole(target) as new:
        new.write_bytes(b"".join(kept))
    return is_cut
