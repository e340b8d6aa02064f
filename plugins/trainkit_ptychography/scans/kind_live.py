"""Patterns in batches: what every ptychographic model and loss is given as ``data``.

Shapes: N = scan points, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from trainkit import Context, DataError, hold_out, in_batches, part_of, random_seed, shuffled
from trainkit_ptychography.scans.batch_order import BatchOrder, arrange
from trainkit_ptychography.scans.half_live import alternating
from trainkit_ptychography.scans.scan import Checked
from trainkit_ptychography.scans.storage import Storage, keep

_ORDER = 0x0DE5  # keeps what a batch order draws apart from the shuffle that deals points to processes
_HOLD_OUT = 0x501D  # keeps the choice of held-out points apart from the shuffles, which are seeded by (seed, epoch)


class LiveDiffraction:
    """A scan that can be trained on.

    Batches hold ``index`` (B,), the scan points, and ``amplitudes`` (B, Y, X), the square roots of the measured
    intensities after these were scaled so that a pattern sums up to 1 in the mean; zero frequency at [0, 0]. If some
    pixels failed in some patterns only, they also hold ``mask`` (B, Y, X): which pixels of each pattern count; it takes
    the place of ``mask_YX``. What does not count is 0.

    Attributes:
        scan: What is known besides the patterns, on the CPU.
        mask_YX: Which pixels of a pattern count (bool, on the device); None: all. The others are 0.
        train_index: The scan points that are trained on; on the CPU.
        held_out_index: Those that are held out; on the CPU; empty where none are.
        mean_counts: Counts that correspond to a total of 1.
        mean_YX: The mean pattern, of total 1, on the CPU; zero frequency at [0, 0].
        scan_powers: The mean total of the patterns of each scan that was joined; (1,) if there is one.
        dtype: Dtype of the amplitudes, and so of everything that is computed from them.
        detector_shape: Rows and columns of a pattern.
        seed: The run's seed.
        device: Device of the batches.
        batches_per_epoch: Whole batches of an epoch.
        is_half: Whether this is half of the evidence.
    """

    def __init__(
        self,
        checked: Checked,
        context: Context,
        batch_size: int,
        validation_fraction: float,
        dtype: torch.dtype = torch.float32,
        storage: Storage = "device",
        batches: BatchOrder = "random",
        every_second: int | None = None,
        is_half: bool = False,
        overwrites: bool = False,
    ) -> None:
        patterns, self.scan, survey = checked
        self.is_half = is_half
        self.seed, self.device = context.seed, torch.device(context.device)
        self._exchange = context.exchange
        self._batch_size = batch_size
        self._batches = batches

        num = len(patterns)
        self.mean_counts = survey.mean_total if self.scan.frame_masks else float(survey.totals_N.mean())
        self.mean_YX = survey.mean_YX / self.mean_counts
        self.scan_powers: tuple[float, ...] = (1.0,)
        if self.scan.scan_N is not None:
            of_scans = [survey.totals_N[self.scan.scan_N == number] for number in range(self.scan.num_scans)]
            self.scan_powers = tuple(float(each.mean()) / self.mean_counts if len(each) else 1.0 for each in of_scans)
        self._fingerprint = _fingerprint(self.scan.positions_N2, survey.totals_N)
        self.dtype = dtype
        self.detector_shape = (patterns.shape[1], patterns.shape[2])
        mask_YX = self.scan.mask_YX
        self.mask_YX = None if mask_YX is None else torch.from_numpy(mask_YX).to(self.device)
        self._patterns = keep(patterns, self._amplitudes, storage, self.device, overwrites)

        self._positions_N2 = torch.from_numpy(self.scan.positions_N2)
        self.train_index, self.held_out_index = hold_out(num, validation_fraction, self.seed, _HOLD_OUT)
        if every_second is not None:
            trained, scan_N = self.train_index.numpy(), self.scan.scan_N
            of_scan_N = None if scan_N is None else scan_N[trained]
            halves_N = torch.from_numpy(alternating(self.scan.positions_N2[trained], of_scan_N))
            self.train_index = self.train_index[halves_N == every_second - 1]
        if not len(self.train_index):
            raise DataError(
                f"{self.scan.source}: of {num} patterns {len(self.held_out_index)} are held out, which leaves too few "
                "to train on: lower data.validation_fraction"
            )
        self.batches_per_epoch = ceil(len(self.train_index) / batch_size)
        self._check_size_of_parts()

    def train(self, epoch: int, start: int) -> Iterator[dict[str, Tensor]]:
        """Yield this process's parts of the batches ``start``… of an epoch, shuffled by (seed, epoch)."""
        index = self.train_index[shuffled(len(self.train_index), self.seed, epoch)]
        generator = torch.Generator().manual_seed(random_seed(self.seed, epoch, _ORDER))
        batches = arrange(self._batches, self._positions_N2[index], self.batches_per_epoch, generator)
        yield from self._loaded([part for places in batches[start:] for part in self._parts_of(index[places])])

    def _parts_of(self, index: Tensor) -> list[Tensor]:
        return [part_of(index, part, self._exchange.num_parts) for part in self._exchange.parts]

    def _check_size_of_parts(self) -> None:
        """Make sure that each part of each batch has a scan point.

        Raises:
            DataError: One has none.
        """
        smallest, parts = len(self.train_index) // self.batches_per_epoch, self._exchange.num_parts
        if smallest < parts:
            raise DataError(
                f"{self.scan.source}: a batch of {smallest} patterns cannot be divided into {parts} parts, one for "
                "each process or shard: raise data.batch_size, or use fewer of them"
            )

    def summary(self) -> str:
        """Return in one phrase what was opened."""
        count, held_out = len(self.scan.positions_N2), len(self.held_out_index)
        height, width = self.detector_shape
        return f"{count:,} patterns of {height} × {width} pixels, {held_out:,} held out"

    def facts(self) -> dict[str, Any]:
        """Return what a model has to know of the data, as JSON values.

        ``fingerprint`` tells scans apart: it is a digest of the positions and of each pattern's total, after
        preparation, so it does not depend on where the files are or where patterns are kept.
        """
        return {
            "num_points": len(self.scan.positions_N2),
            "detector_shape": list(self.detector_shape),
            "pixel_size_angstrom": self.scan.pixel_size_angstrom,
            "wavelength_angstrom": self.scan.wavelength_angstrom,
            "fingerprint": self._fingerprint,
        }

    def split_fingerprint(self) -> dict[str, str]:
        """Return a digest of the numbers of the held-out scan points, which the run's seed chooses."""
        return {"val": xxhash.xxh3_128_hexdigest(self.held_out_index.numpy().astype("<i8").tobytes())}

    def evaluate(self, split: str) -> Iterator[dict[str, Tensor]]:
        """Yield this process's share of a split, in the order of the scan."""
        known = {"train": self.train_index, "val": self.held_out_index}
        if split not in known:
            raise DataError(f'diffraction data has no split "{split}"; it has {", ".join(known)}')
        size = ceil(self._batch_size / self._exchange.num_parts)
        yield from self._loaded([each for part in self._parts_of(known[split]) for each in in_batches(part, size)])

    def some(self, index: Tensor) -> Iterator[dict[str, Tensor]]:
        """Yield batches of chosen scan points (N,), whose numbers are on the CPU."""
        yield from self._loaded(in_batches(index, self._batch_size))

    def _loaded(self, indices: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        for index, amplitudes_BYX in self._patterns.batches(indices):
            if not self.scan.frame_masks:
                yield {"index": index, "amplitudes": amplitudes_BYX}
                continue
            measured_BYX = ~amplitudes_BYX.isnan()
            if self.mask_YX is not None:
                measured_BYX &= self.mask_YX
            amplitudes_BYX = torch.where(measured_BYX, amplitudes_BYX, 0.0)
            yield {"index": index, "amplitudes": amplitudes_BYX, "mask": measured_BYX}

    def _amplitudes(self, intensities_BYX: NDArray[np.float32], overwrites: bool) -> Tensor:
        dtype = np.dtype(str(self.dtype).removeprefix("torch."))
        if self.scan.mask_YX is not None and not self.scan.frame_masks:
            intensities_BYX = np.where(np.isnan(intensities_BYX), 0, intensities_BYX)  # in no pattern measured
        into_BYX = intensities_BYX if overwrites and intensities_BYX.dtype == dtype else None
        scaled_BYX = np.divide(intensities_BYX, self.mean_counts, out=into_BYX, dtype=dtype)
        return torch.from_numpy(np.sqrt(scaled_BYX, out=scaled_BYX))


def _fingerprint(*arrays: NDArray[np.float64]) -> str:
    digest = xxhash.xxh3_128()
    for array in arrays:
        # Single precision, so that the last digits, which differ between machines, have no say.
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return digest.hexdigest()
