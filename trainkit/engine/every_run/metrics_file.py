"""Writes ``metrics.jsonl``: one line of JSON per epoch, with every value under its full name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.errors import PartError
from trainkit.events import Live
from trainkit.files.writing import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.state import State

NAME = "metrics.jsonl"

_OWN = ("epoch", "step", "seconds")


class MetricsFile(Live):
    """Part of every run.

    ``epoch`` counts from 0; ``seconds`` is the epoch's wall-clock time. A line without ``seconds`` has the values of a
    split that was evaluated inside an epoch, after ``step`` steps of the run. JSON has no NaN: a value that is not
    finite is written as null.
    """

    def on_validation_end(self, state: State) -> None:
        """Append a line with the split's values if it is evaluated inside an epoch."""
        if not state.closing:
            values = {name: value for name, value in state.metrics.items() if name.startswith(f"{state.split}/")}
            _append(state, values, {})

    def on_epoch_end(self, state: State) -> None:
        """Append the epoch's line, which is on the disk before the epoch's checkpoint."""
        _append(state, state.metrics, {"seconds": round(sum(state.seconds.values()), 3)})


def _append(state: State, values: Mapping[str, float], more: Mapping[str, float]) -> None:
    finite = {name: _finite(name, value) for name, value in values.items()}
    line = {"epoch": state.epoch, "step": state.step, **finite, **more}
    with (state.folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _finite(name: str, value: Any) -> float | None:
    """Return a value, or None if it is not finite.

    Raises:
        PartError: It is no number, or its name is taken.
    """
    if name in _OWN:
        raise PartError(f'state.metrics["{name}"] was set by a part of the run: a full name is "<split>/<name>"')
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise PartError(f'state.metrics["{name}"] must be a number; a part of the run set it to {value!r}') from error
    return number if math.isfinite(number) else None


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's metrics file, without an incomplete last line."""
    path = folder / NAME
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def cut_back(folder: Path, epochs: int, evaluated_step: int, into: Path | None = None) -> None:
    """Keep only the lines that were written before a checkpoint.

    Args:
        folder: The run folder.
        epochs: Number of finished epochs in the checkpoint from which the run is resumed.
        evaluated_step: Number of finished steps at the checkpoint's last evaluation.
        into: Another run folder to write the lines to; None: the same folder.
    """
    kept = [
        json.dumps(line) + "\n"
        for line in read(folder)
        if line["epoch"] < epochs or ("seconds" not in line and line["step"] <= evaluated_step)
    ]
    with written_whole((into or folder) / NAME) as new:
        new.write_text("".join(kept), encoding="utf-8")
