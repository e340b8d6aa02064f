"""Hands batches from worker processes to the training process through shared memory that is kept.

Shared memory that is new for each batch is expensive: the system fills its pages with zeros, and each process has to
ask for each of them. For 14 MB this takes several times as long as making the batch. Here, each worker has a few pieces
of memory, which it fills in turns. The training process copies a batch out of its piece, and hands the piece back; if
none is free, a batch gets new memory.
"""

from __future__ import annotations

import io
import itertools
import math
import multiprocessing
import pickle
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor

PIECES = 3
"""Pieces of a worker: two batches may wait to be fetched, and one is being copied."""

_ALIGNMENT = 64  # bytes

_numbers = itertools.count()
_in_this_process: weakref.WeakValueDictionary[int, KeptMemory] = weakref.WeakValueDictionary()


class KeptMemory:
    """The pieces of memory of some worker processes, which have to be started after it was made.

    Args:
        num_workers: Number of worker processes.
    """

    def __init__(self, num_workers: int) -> None:
        self._number = next(_numbers)
        _in_this_process[self._number] = self
        self._taken = [[multiprocessing.Lock() for _ in range(PIECES)] for _ in range(num_workers)]
        self._pieces: dict[tuple[int, int], Tensor] = {}  # (worker, number of its piece) -> bytes

    def sent(self, batch: Any, worker: int) -> SentBatch:
        """Return a batch in the form in which it is sent, in a worker process.

        Args:
            batch: Anything that can be pickled. Its tensors are put into the memory, if they are plain ones on the CPU.
            worker: Number of the worker.
        """
        stream = io.BytesIO()
        pickler = _Pickler(stream)
        pickler.dump(batch)
        piece = next((n for n, lock in enumerate(self._taken[worker]) if lock.acquire(block=False)), None)
        memory = None if piece is None else self._pieces.get((worker, piece))
        if is_new := memory is None or len(memory) < pickler.size:
            memory = torch.empty(max(pickler.size, _ALIGNMENT), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
            if piece is not None:
                self._pieces[worker, piece] = memory
        assert memory is not None
        for place, tensor in pickler.tensors.values():
            place.view(memory).copy_(tensor)
        return SentBatch((self._number, worker, piece, memory if is_new else None, stream.getvalue()))

    def taken_in(self, worker: int, piece: int | None, memory: Tensor | None) -> Tensor:
        """Return the memory of a batch that arrived in the training process.

        Args:
            worker: Number of the worker that sent it.
            piece: Number of its piece; None: it has memory of its own.
            memory: The memory if it is new.
        """
        if piece is None:
            assert memory is not None
            return memory
        if memory is not None:
            self._pieces[worker, piece] = memory
        return self._pieces[worker, piece]

    def hand_back(self, worker: int, piece: int | None) -> None:
        """Let a worker use a piece again."""
        if piece is not None:
            self._taken[worker][piece].release()


class SentBatch:
    """A batch on its way out of a worker process; where it arrives, it is an `ArrivedBatch`."""

    def __init__(self, content: tuple[int, int, int | None, Tensor | None, bytes]) -> None:
        self._content = content

    def __reduce__(self) -> tuple[type[ArrivedBatch], tuple[Any, ...]]:
        return ArrivedBatch, self._content


class ArrivedBatch:
    """A batch that arrived in the training process. Its memory is handed back when it is opened or dropped.

    Args:
        number: Number of the `KeptMemory`.
        worker: Number of the worker that sent it.
        piece: Number of the worker's piece of memory; None: it has memory of its own.
        memory: The memory if it is new.
        message: The batch, pickled without its tensors.
    """

    def __init__(self, number: int, worker: int, piece: int | None, memory: Tensor | None, message: bytes) -> None:
        self._of = _in_this_process[number]
        self._worker, self._piece, self._message = worker, piece, message
        self._memory: Tensor | None = self._of.taken_in(worker, piece, memory)

    def opened(self, pin: bool = False) -> Any:
        """Return the batch in memory of its own, and hand back the kept memory; can be called once.

        Args:
            pin: Whether its tensors are put into page-locked memory.
        """
        assert self._memory is not None
        batch = _Unpickler(self._message, self._memory, pin).load()
        self._hand_back()
        return batch

    def pin_memory(self) -> Any:
        """Return the batch in page-locked memory. torch's loader calls this, in a thread of its own."""
        return self.opened(pin=True)

    def _hand_back(self) -> None:
        if self._memory is not None:
            self._memory = None
            self._of.hand_back(self._worker, self._piece)

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self._hand_back()


class _Place(NamedTuple):
    """Where the elements of a tensor are in the memory, and how they lie there."""

    start: int  # byte
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, memory: Tensor) -> Tensor:
        end = self.start + math.prod(self.shape) * self.dtype.itemsize
        return memory[self.start : end].view(self.dtype).as_strided(self.shape, self.strides)


class _Pickler(ForkingPickler):
    """Pickles a batch without its tensors, and chooses a place in the memory for each of them."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.tensors: dict[int, tuple[_Place, Tensor]] = {}
        self.size = 0  # bytes of all places

    def persistent_id(self, obj: Any) -> _Place | None:
        """Return the place of a plain tensor on the CPU; None for what is pickled as torch does it."""
        if type(obj) is not Tensor or obj.device.type != "cpu" or obj.layout != torch.strided:
            return None
        if obj.requires_grad or obj.is_quantized:
            return None
        if id(obj) not in self.tensors:
            strides = torch.empty_like(obj, device="meta").stride()  # its own, unless elements share their memory
            self.tensors[id(obj)] = _Place(self.size, obj.dtype, tuple(obj.shape), strides), obj
            self.size += -(-obj.nbytes // _ALIGNMENT) * _ALIGNMENT
        return self.tensors[id(obj)][0]


class _Unpickler(pickle.Unpickler):
    """Reads a batch whose tensors are in some memory, and copies them."""

    def __init__(self, message: bytes, memory: Tensor, pin: bool) -> None:
        super().__init__(io.BytesIO(message))
        self._memory, self._pin = memory, pin
        self._copies: dict[_Place, Tensor] = {}

    def persistent_load(self, place: _Place) -> Tensor:
        """Return the tensor of a place."""
        if place not in self._copies:
            copy = torch.empty_strided(place.shape, place.strides, dtype=place.dtype, pin_memory=self._pin)
            self._copies[place] = copy.copy_(place.view(self._memory))
        return self._copies[place]
