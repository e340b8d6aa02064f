"""Data with a calibrator, which fits the scale of the toy's predictor to held-out points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from clients.predicting import LiveSums, Points, Sums
from trainkit import Calibration, Calibrator, LivePredictor, Member, OpenedRun, Predictor, Progress, component


@component
class Measured(Points):
    """Points about a line, with a calibrator."""

    predictor: ClassVar[str | None] = "clients.calibrating:Scaled"
    calibrator: ClassVar[str | None] = "clients.calibrating:Scale"


@component
class Scaled(Sums):
    """Writes the mean output of the networks, times a scale that can be fitted."""

    scale: float | None = None  # type: ignore[assignment]

    def takes_calibration(self) -> bool:
        return self.scale is None

    def build(self, members: tuple[Member, ...], device: Any, tell: Callable[[Progress], None]) -> LivePredictor:
        return LiveSums(Sums(scale=self.scale or 1.0, extra=self.extra), members, tell)


@component
class Scale(Calibrator):
    """Sets the scale.

    Attributes:
        to: The scale.
        doubtful: Whether there is a doubt, and nothing to apply.
    """

    to: float = 10.0
    doubtful: bool = False

    def calibrate(
        self, runs: tuple[OpenedRun, ...], predictor: Predictor, device: Any, tell: Callable[[Progress], None]
    ) -> Calibration:
        def fail(path: Path) -> None:
            raise RuntimeError("no ink")

        held_out = [len(list(run.data.evaluate(split))) for run in runs for split in run.held_out]
        return Calibration(
            predict={} if self.doubtful else {"scale": self.to},
            depends_on=("extra",),
            results={"held_out": held_out},
            rows=({"case": "one", "error": 0.5},),
            lines=(f"the scale is {self.to:g}",),
            doubts=("it does not help",) if self.doubtful else (),
            pictures={"good.png": lambda path: path.write_text("drawn"), "bad.png": fail},  # type: ignore[dict-item]
        )
