"""Where patterns are kept during a run: on the device, in the host's memory, or in their file.

Shapes: N = scan points, B = patterns of a batch, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError, bytes_in_words, free_host_memory
from trainkit_ptychography.scans.patterns import SHARE_OF_MEMORY, Patterns, PreparedPatterns, pieces
from trainkit_ptychography.scans.scan import Recording

Storage = Literal["device", "host", "disk"]

Amplitudes = Callable[[NDArray[np.float32], bool], Tensor]
"""Converts intensities (B, Y, X) into amplitudes; the second argument: whether these may take their place."""

_AHEAD = 2  # batches that are read before they are asked for
_SHARE = 0.25  # of the time in which batches are used: what reading them in between may take
_SECONDS = 0.05  # that reading may take in addition: the first batches tell little


def choose_storage(recording: Recording, wanted: Literal["auto"] | Storage, device: torch.device) -> Storage:
    """Return where to keep patterns; "auto" is the first of device, host and disk where they fit.

    Raises:
        DataError: They do not fit where they are wanted, or cannot be read piece by piece from their file.
    """
    patterns, source = recording.intensities_NYX, recording.scan.source
    in_file = isinstance(patterns, PreparedPatterns) and patterns.in_file
    needed = 4 * prod(patterns.shape)
    if wanted == "disk":
        if not in_file:
            raise DataError(
                f'{source}: patterns_on = "disk", but these cannot be read piece by piece: they are packed, in Fortran '
                'order, or simulated; save them as HDF5, or as .npy in C order, or say "auto"'
            )
        return "disk"
    on_host = device.type == "cpu"
    free: dict[Storage, int] = {"device": free_host_memory() if on_host else _free_device_memory(device)}
    free["host"] = free_host_memory()
    if wanted == "auto":
        fitting: list[Storage] = [each for each, there in free.items() if needed <= SHARE_OF_MEMORY * there]
        if fitting:
            return fitting[0]
        if in_file:
            return "disk"
        wanted = "host"  # they are in memory already, or fit nowhere
        if not isinstance(patterns, PreparedPatterns):
            return wanted
    if needed > free[wanted]:
        streamed = 'say patterns_on = "disk", or make them smaller' if in_file else "make them smaller"
        raise DataError(
            f"{source}: {patterns.shape[0]} patterns of {patterns.shape[1]} × {patterns.shape[2]} take "
            f"{bytes_in_words(needed)} on the {wanted}, where {bytes_in_words(free[wanted])} are free: {streamed} "
            "(prepare.crop, prepare.bin)"
        )
    return wanted


def _free_device_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0  # unknown for any other device


def read_if_it_fits(recording: Recording, storage: Storage) -> Recording:
    """Return the recording with its patterns read into memory, if they are kept there and the host has room."""
    patterns = recording.intensities_NYX
    if storage == "disk" or not isinstance(patterns, PreparedPatterns):
        return recording
    if 4 * prod(patterns.shape) > free_host_memory():
        return recording  # the device has more: they go there piece by piece
    return recording._replace(intensities_NYX=np.asarray(patterns))


class Resident:
    """Amplitudes in the device's memory.

    Args:
        patterns: The intensities.
        amplitudes: Converts some of them into amplitudes.
        device: Device of the batches.
        overwrites: Whether amplitudes may take the place of the intensities, an array in memory that nobody else needs.
    """

    def __init__(
        self,
        patterns: Patterns,
        amplitudes: Amplitudes,
        device: torch.device,
        overwrites: bool = False,
    ) -> None:
        whole_NYX: Tensor | None = None
        if overwrites and device.type == "cpu" and isinstance(patterns, np.ndarray):
            whole_NYX = torch.from_numpy(patterns)
        for piece, patterns_BYX in pieces(patterns):
            amplitudes_BYX = amplitudes(patterns_BYX, False)
            if whole_NYX is None or whole_NYX.dtype != amplitudes_BYX.dtype:
                whole_NYX = torch.empty(patterns.shape, dtype=amplitudes_BYX.dtype, device=device)
            whole_NYX[piece] = amplitudes_BYX.to(device)
        assert whole_NYX is not None  # there are patterns, `checked` made sure
        self._amplitudes_NYX = whole_NYX

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index (B,) on the CPU, yield the index and its amplitudes (B, Y, X) on the device."""
        kept = tuple(indices)
        if not kept:
            return
        # All indices go over at once: a copy for each batch would wait for the device each time.
        moved = torch.cat(kept).to(self._amplitudes_NYX.device)
        for index in torch.split(moved, [len(each) for each in kept]):
            yield index, self._amplitudes_NYX.index_select(0, index)


class Streamed:
    """Amplitudes that go to the device batch by batch.

    On a CPU, a batch is read when it is asked for as long as that takes little, as it does from a file that the system
    has in its memory: two threads that are both in Python wait for each other, which would take more. Otherwise, the
    next batches are read in a second thread while one is in use. The batches are the same.

    Args:
        patterns: The intensities, in the host's memory or in a file.
        amplitudes: Converts some of them into amplitudes.
        device: Device of the batches.
    """

    def __init__(self, patterns: Patterns, amplitudes: Amplitudes, device: torch.device) -> None:
        self._patterns, self._amplitudes, self._device = patterns, amplitudes, device
        self._are_own = isinstance(patterns, np.ndarray | PreparedPatterns)  # what is read of these is nobody else's
        # One thread for the whole run: each new one would begin with a heap of its own.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="patterns")

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index (B,) on the CPU, yield the index and its amplitudes (B, Y, X) on the device."""
        left = deque(indices)
        if self._device.type == "cpu":
            yield from self._when_asked_for(left)
        yield from self._ahead(left)

    def _when_asked_for(self, left: deque[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches, which are taken from what is left, until reading them takes too much of the time."""
        reading = using = 0.0  # seconds
        while left and reading <= _SHARE * using + _SECONDS:
            asked = perf_counter()
            batch = self._read(left.popleft())
            handed_out = perf_counter()
            reading += handed_out - asked
            yield batch
            using += perf_counter() - handed_out

    def _ahead(self, left: deque[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            for index in left:
                waiting.append(self._reader.submit(self._read, index))
                if len(waiting) > _AHEAD:
                    yield self._arrived(waiting.popleft())
            while waiting:
                yield self._arrived(waiting.popleft())
        finally:
            for reading in waiting:
                reading.cancel()

    def _read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        both = (index, self._amplitudes(self._patterns[index.numpy()], self._are_own))
        return (both[0].pin_memory(), both[1].pin_memory()) if self._device.type == "cuda" else both

    def _arrived(self, reading: Future[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        index, amplitudes_BYX = (each.to(self._device, non_blocking=True) for each in reading.result())
        return index, amplitudes_BYX


def keep(
    patterns: Patterns,
    amplitudes: Amplitudes,
    storage: Storage,
    device: torch.device,
    overwrites: bool = False,
) -> Resident | Streamed:
    """Return patterns as amplitudes, kept where ``storage`` says, from which batches can be made.

    Args:
        patterns: The intensities.
        amplitudes: Converts some of them into amplitudes.
        storage: Where to keep them.
        device: Device of the batches.
        overwrites: Whether patterns in memory are needed by nobody else.
    """
    on_device = storage == "device" or (storage == "host" and device.type == "cpu")
    if on_device:
        return Resident(patterns, amplitudes, device, overwrites)
    return Streamed(patterns, amplitudes, device)
