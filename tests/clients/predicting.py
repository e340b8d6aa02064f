"""Data that a model can be recalled from, and a predictor: the numbers in text files go through the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import attrs

from clients.toy import Line, LiveLine
from trainkit import HARMLESS, DataError, LivePredictor, Member, PredictionItem, Predictor, Progress, component


@dataclass
class LivePoints(LiveLine):
    def facts(self) -> dict[str, Any]:
        return {"inputs": {"ending": ".txt"}}


@component
class Points(Line):
    """Points about a line, with facts."""

    predictor: ClassVar[str | None] = "clients.predicting:Sums"

    def build(self, context: Any) -> LivePoints:
        return LivePoints(context.seed, self.batch_size)

    def recall(self, facts: Mapping[str, Any]) -> Any:
        return facts


@component
class Sums(Predictor):
    """Writes the mean output of the networks for each file.

    Attributes:
        scale: Factor of the output.
        at_once: Changes nothing.
        extra: Whether a second file is written.
    """

    scale: float = 1.0
    at_once: int = attrs.field(default=1, metadata=HARMLESS)
    extra: bool = False

    def build(self, members: tuple[Member, ...], device: Any, tell: Callable[[Progress], None]) -> LivePredictor:
        return LiveSums(self, members, tell)


@dataclass
class LiveSums:
    settings: Sums
    members: tuple[Member, ...]
    tell: Callable[[Progress], None]

    def items(self, inputs: Iterable[Path]) -> Iterator[PredictionItem]:
        for path in inputs:
            for file in sorted(path.glob("*.txt")) if path.is_dir() else [path]:
                empty = "it is empty" if not file.read_text() else None
                yield PredictionItem(file.stem, (file,), empty)

    def predict(self, item: PredictionItem, folder: Path) -> str:
        import torch

        text = item.files[0].read_text()
        if text == "unreadable":
            raise DataError("it cannot be read")
        x = torch.tensor([[float(number) for number in text.split()]])  # raises ValueError where there is a word
        self.tell(Progress(1, 1, "rows"))
        y = sum(member.model({"x": x})["y"].item() for member in self.members) / len(self.members)
        (folder / f"{item.name}.out").write_text(f"{self.settings.scale * y:.6g}")
        if self.settings.extra:
            (folder / "extra").mkdir()
            (folder / "extra" / f"{item.name}.out").write_text("more")
        return f"sum {y:.3g}"
