"""Data with a halver, which gives each half another batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from clients.predicting import Points
from trainkit import Agreement, Halver, Recipe, component


@component
class Halves(Points):
    """Points about a line, with a halver."""

    halver: ClassVar[str | None] = "clients.halving:ByBatches"


@component
class ByBatches(Halver):
    """Counts the lines that both runs have written.

    Attributes:
        doubtful: Whether there is a doubt.
    """

    doubtful: bool = False

    def changes(self, recipe: Recipe, checkpoint: Path, half: int) -> Mapping[str, Any]:
        assert checkpoint.is_file()
        return {"data": {"batch_size": 2 * half}, "drop": ["ema"]}

    def compare(self, recipe: Recipe, one: Path, other: Path) -> Agreement:
        lines = [len((each / "metrics.jsonl").read_text().splitlines()) for each in (one, other)]
        sizes = [int((each / "recipe.toml").read_text().split("batch_size = ")[1].split()[0]) for each in (one, other)]
        return Agreement(
            name="toys",
            results={"batch_sizes": sizes},
            rows=({"line": 1.0},),
            lines=(f"both have lines in metrics.jsonl: {lines[0]} and {lines[1]}",),
            doubts=("they are toys",) if self.doubtful else (),
            pictures={"toys.png": lambda path: path.write_text("drawn")},  # type: ignore[dict-item]
        )
