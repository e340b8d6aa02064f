"""Writes all values of a run as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs.validators import ge

from trainkit.contracts import HARMLESS, Context, Logger, component
from trainkit.files.writing import append_line, written_whole
from trainkit.loggers.in_background import InBackground
from trainkit.loggers.recorder import Place
from trainkit.loggers.sink import Sink, Start

NAME = "values.jsonl"


@component
class JSONL(Logger):
    """Writes all values into ``values.jsonl`` of the run folder: one line of JSON for each epoch, step and mark.

    Unlike ``metrics.jsonl``, which every run has, it holds values of single steps, gradient norms and times. A line has
    "by" ("epoch" or "step"), "epoch" and "step" (how many are finished), and the values under their full names; what
    is not finite is null. When a run continues, later lines are cut off.

    Attributes:
        every_steps: Optimizer steps between two values of single steps; 0: none are written.
        gradient_norm_every_steps: Steps of an epoch between two gradients whose norms are computed; 0: none are.
    """

    steps_can_be_recorded: ClassVar[bool] = True

    takes_late_values: ClassVar[bool] = True

    every_steps: int = attrs.field(default=50, validator=ge(0), metadata=HARMLESS)
    gradient_norm_every_steps: int = attrs.field(default=10, validator=ge(0), metadata=HARMLESS)

    def build(self, context: Context) -> object:
        """Make the live part."""
        return InBackground(_Lines(), self.every_steps, self.gradient_norm_every_steps)


class _Lines(Sink):
    """The file, one line for each call."""

    name = NAME
    wait_seconds = 10.0

    def open(self, start: Start) -> None:
        """Keep the lines that belong to what is finished; a line that was not written to its end is none."""
        self._path = start.folder / NAME
        source = (start.about.continues or start.folder) / NAME
        kept = [line for line in _read(source) if start.keeps(*_parsed(line))]
        if source.exists() or self._path.exists():
            with written_whole(self._path) as new:
                new.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Append a line."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        append_line(self._path, json.dumps({"by": place.by, "epoch": place.epoch, "step": place.step, **finite}))


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the lines that can be read."""
    lines = []
    for text in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            line = json.loads(text)
            _parsed(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        lines.append(line)
    return lines


def _parsed(line: Mapping[str, Any]) -> tuple[Mapping[str, Any], Place]:
    """Return the values of a line, and their place."""
    by, epoch, step = line["by"], int(line["epoch"]), int(line["step"])
    values = {name: value for name, value in line.items() if name not in ("by", "epoch", "step")}
    return values, Place(by, {"epoch": epoch, "step": step}[by], epoch, step)
