"""A metric: what is measured on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainkit import Batch, Metric, Outputs, component

from trainkit_example.line import Line


@component
class LargestError(Metric):
    """The largest absolute error over a split."""

    accepts = Line

    def names(self) -> tuple[str, ...]:
        return ("largest_error",)

    def build(self, data: Any) -> LiveLargestError:
        return LiveLargestError()


class LiveLargestError:
    """The errors that were seen since the last value."""

    def __init__(self) -> None:
        self._errors: list[float] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._errors.append((outputs["y"] - batch["y"]).abs().max().item())

    def compute(self) -> dict[str, float]:
        errors, self._errors = self._errors, []
        return {"largest_error": max(errors)}

    def share(self) -> list[float]:  # with several processes, each of them sees a part of the split
        return self._errors

    def merge(self, shares: Sequence[list[float]]) -> None:
        self._errors = [error for each in shares for error in each]
