"""Data: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
from trainkit import Batch, Context, Data, component, random_seed

if TYPE_CHECKING:
    from torch import Tensor


@component
class Line(Data):
    """Points about a line, new ones in each step.

    Attributes:
        batch_size: Points per batch.
        noise: Standard deviation of what is added to each point.
    """

    batch_size: int = attrs.field(default=8, validator=attrs.validators.ge(1))
    noise: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))

    def splits(self) -> tuple[str, ...]:
        return "train", "val"  # all but "train" are held out

    def build(self, context: Context) -> LiveLine:
        return LiveLine(context.seed, self)

    def recall(self, facts: Any) -> Any:
        return None  # the model needs nothing of the data: so it can be built from a checkpoint alone


class LiveLine:
    """The opened data."""

    batches_per_epoch = 4

    def __init__(self, seed: int, settings: Line) -> None:
        self._seed, self._settings = seed, settings

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        for number in range(start, self.batches_per_epoch):  # a resumed run may begin within an epoch
            yield self._batch(epoch, number)

    def evaluate(self, split: str) -> Iterator[Batch]:
        yield self._batch(-1, 0)

    def _batch(self, epoch: int, number: int) -> dict[str, Tensor]:
        import torch  # not at the top of the file: `trainkit check` answers at once, because it imports no torch

        # Randomness by seed, epoch and number alone, and never global: so a resumed run sees the same points.
        generator = torch.Generator().manual_seed(random_seed(self._seed, epoch, number))
        x = torch.randn(self._settings.batch_size, 3, generator=generator)
        noise = self._settings.noise * torch.randn(self._settings.batch_size, 1, generator=generator)
        return {"index": torch.arange(self._settings.batch_size), "x": x, "y": x.sum(1, keepdim=True) + 1 + noise}
