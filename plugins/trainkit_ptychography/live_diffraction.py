"""Patterns on the device, in batches: what every ptychographic model and loss is given as ``data``.

Shapes: N = scan points, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from torch import Tensor

from trainkit import Context, DataError, random_seed
from trainkit_ptychography.batch_order import BatchOrder, arrange
from trainkit_ptychography.scan import Recording

_ORDER = 0x0DE5  # keeps what a batch order draws apart from the shuffle that deals points to processes
_HOLD_OUT = 0x501D  # keeps the choice of held-out points apart from the shuffles, which are seeded by (seed, epoch)


class LiveDiffraction:
    """A scan that can be trained on.

    Batches hold ``index`` (B,), the scan points, and ``amplitudes`` (B, Y, X), the square roots of the measured
    intensities after these were scaled so that a pattern sums up to 1 in the mean; zero frequency at [0, 0].

    Attributes:
        scan: What is known of it besides the patterns, on the CPU.
        amplitudes_NYX: All patterns, on the device.
        train_index: The scan points that are trained on.
        held_out_index: The others; empty where none are held out.
        mask_YX: True where the detector can be trusted, zero frequency at [0, 0]; None: everywhere.
        mean_counts: What a pattern's total of 1 stands for.
        seed: The run's seed.
        device: Where batches are.
        steps_per_epoch: Batches of an epoch, on this process.
    """

    def __init__(
        self,
        recording: Recording,
        context: Context,
        batch_size: int,
        validation_fraction: float,
        dtype: torch.dtype = torch.float32,
        batches: BatchOrder = "random",
    ) -> None:
        intensities_NYX, self.scan = recording
        self.seed, self.device = context.seed, torch.device(context.device)
        self._rank, self._world = context.rank, context.world
        self._batch_size = batch_size
        self._batches = batches
        self.mask_YX: Tensor | None = None

        num = len(intensities_NYX)
        self.mean_counts = float(intensities_NYX.sum(dtype=np.float64)) / num
        scaled_NYX = np.divide(intensities_NYX, self.mean_counts, dtype=str(dtype).removeprefix("torch."))
        self.amplitudes_NYX = torch.from_numpy(np.sqrt(scaled_NYX, out=scaled_NYX)).to(self.device)

        self._positions_N2 = torch.from_numpy(self.scan.positions_N2)
        num_held_out = max(1, round(num * validation_fraction)) if validation_fraction > 0 else 0
        if num - num_held_out < self._world:
            raise DataError(
                f"{self.scan.source}: of {num} patterns {num_held_out} are held out, which leaves too few to train on: "
                "lower data.validation_fraction"
            )
        shuffled = torch.randperm(num, generator=_generator(self.seed, _HOLD_OUT))
        self.held_out_index = shuffled[:num_held_out].sort().values.to(self.device)
        self.train_index = shuffled[num_held_out:].sort().values.to(self.device)
        self.steps_per_epoch = ceil(len(self.train_index) // self._world / batch_size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the amplitudes, and so of everything that is computed from them."""
        return self.amplitudes_NYX.dtype

    @property
    def detector_shape(self) -> tuple[int, int]:
        """Rows and columns of a pattern."""
        return self.amplitudes_NYX.shape[1], self.amplitudes_NYX.shape[2]

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Tensor]]:
        """Yield the batches ``start``… of an epoch, shuffled by (seed, epoch)."""
        num = len(self.train_index) // self._world * self._world  # as many for each process
        order = torch.randperm(len(self.train_index), generator=_generator(self.seed, epoch))
        mine = self.train_index.cpu()[order[:num][self._rank :: self._world]]
        generator = _generator(self.seed, epoch, _ORDER)
        for places in arrange(self._batches, self._positions_N2[mine], self.steps_per_epoch, generator)[start:]:
            yield self._batch(mine[places].to(self.device))

    def evaluate(self, split: str) -> Iterator[dict[str, Tensor]]:
        """Yield a whole split in the order of the scan."""
        known = {"train": self.train_index, "val": self.held_out_index}
        if split not in known:
            raise DataError(f'diffraction data has no split "{split}"; it has {", ".join(known)}')
        if len(known[split]):
            for index in known[split].tensor_split(ceil(len(known[split]) / self._batch_size)):
                yield self._batch(index)

    def _batch(self, index: Tensor) -> dict[str, Tensor]:
        return {"index": index, "amplitudes": self.amplitudes_NYX.index_select(0, index)}


def _generator(*place: int) -> torch.Generator:
    return torch.Generator().manual_seed(random_seed(*place))
