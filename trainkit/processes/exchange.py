"""What the processes of a run tell each other: sums of what each computed, decisions, and why one of them failed.

Every whole batch is divided into parts, of which each process computes some: as many parts as there are processes, or
``[run] shards`` of them. With shards, all sums over parts are added up in one fixed binary tree, so that their bits do
not depend on the number of processes.

Tensors of a device are added up by its own backend (NCCL on CUDA, gloo on the CPU); everything else, which is small, is
exchanged over gloo, so that no process has to wait for its device.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trainkit.errors import LostProcessError, RecipeError
from trainkit.processes.place import ALONE, Place
from trainkit.processes.tree import TreeSum

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")

_FEW = 1 << 14  # numbers, of which it costs more to send them twice than to send them all


class Exchange:
    """What one process of a run exchanges with the others.

    Args:
        place: Which of the processes this one is.
        shards: Number of parts of each whole batch; 0: as many as there are processes.

    Attributes:
        place: Which of the processes this one is.
        shards: As given.
        parts: The parts that this process computes.
    """

    def __init__(self, place: Place = ALONE, shards: int = 0) -> None:
        self.place, self.shards = place, shards
        each = self.num_parts // self.world
        self.parts = range(self.rank * each, (self.rank + 1) * each)

    def with_shards(self, shards: int) -> Exchange:
        """Return the exchange of the same processes for a run with so many shards.

        Raises:
            RecipeError: The shards cannot be divided evenly among the processes.
        """
        if shards and shards % self.world:
            powers = ", ".join(str(2**k) for k in range(shards.bit_length()) if shards % 2**k == 0)
            raise RecipeError(
                f"run.shards = {shards} cannot be divided among {self.world} processes; possible are {powers}"
            )
        return Exchange(self.place, shards)

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return self.place.rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.place.world

    @property
    def num_parts(self) -> int:
        """Number of parts of each whole batch."""
        return self.shards or self.world

    # ---- sums -------------------------------------------------------------------------------------------------------

    def sum_of_parts(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a sum over all parts of a step, on every process.

        Args:
            tensors: What this process contributes, part by part, all of one shape: the same number for each of its
                parts, those of the first part first.
        """
        each = len(tensors) // len(self.parts)
        if self.num_parts == 1 and each == 1:
            return tensors[0]
        total = TreeSum()
        for start in range(0, len(tensors), each):
            whole = tensors[start]
            for tensor in tensors[start + 1 : start + each]:
                whole = whole + tensor
            total.add(whole.clone() if each == 1 else whole)
        return self.sum_of_processes(total.total())

    def sum_of_processes(self, own: Tensor) -> Tensor:
        """Return the sum over all processes of what each has summed up over its parts, in place of ``own``.

        With shards, element by element in the order of the tree, whatever the way: in a pair, the bits of a + b are
        those of b + a.
        """
        if self.world == 1:
            return own
        import torch.distributed as dist

        with _blaming_others():
            if not self.shards:
                dist.all_reduce(own)
            elif own.numel() < _FEW or not own.is_contiguous():
                for level in range(self.world.bit_length() - 1):
                    other = own.new_empty(own.shape)
                    self._swap(own, other, self.rank ^ (1 << level))
                    own.add_(other)
            else:
                self._sum_in_pieces(own.view(-1))
        return own

    def _sum_in_pieces(self, own: Tensor) -> None:
        """Let each process of a pair add one half, then a quarter with the next one, and so on; then send them back.

        In this way a process sends less than two times its numbers, however many processes there are.
        """
        start, stop = 0, len(own)
        halves: list[tuple[int, Tensor, Tensor]] = []
        spare = own.new_empty((len(own) + 1) // 2)
        for level in range(self.world.bit_length() - 1):
            peer, middle = self.rank ^ (1 << level), (start + stop) // 2
            pieces = own[start:middle], own[middle:stop]
            kept, sent = pieces if self.rank < peer else pieces[::-1]
            received = spare[: len(kept)]
            self._swap(sent, received, peer)
            kept.add_(received)
            start, stop = (start, middle) if self.rank < peer else (middle, stop)
            halves.append((peer, kept, sent))
        for peer, kept, missing in reversed(halves):
            self._swap(kept, missing, peer)

    def _swap(self, sent: Tensor, received: Tensor, peer: int) -> None:
        """Send a tensor to a process, which sends one as well."""
        import torch.distributed as dist

        ways = [dist.P2POp(dist.isend, sent, peer), dist.P2POp(dist.irecv, received, peer)]
        for work in dist.batch_isend_irecv(ways):
            work.wait()

    def total(self, number: int) -> int:
        """Return the sum of a whole number over all processes."""
        return self._reduced([number], "SUM")[0]

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest of each of some whole numbers over all processes."""
        return self._reduced(numbers, "MAX")

    def _reduced(self, numbers: Sequence[int], how: str) -> list[int]:
        if self.world == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(numbers)
        with _blaming_others():
            dist.all_reduce(tensor, op=getattr(dist.ReduceOp, how))
        found: list[int] = tensor.tolist()
        return found

    # ---- objects ----------------------------------------------------------------------------------------------------

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all processes, in the order of their ranks, on every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        with _blaming_others():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, value: _T) -> _T:
        """Return the value of the first process, on every process."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box: list[Any] = [value]
        with _blaming_others():
            dist.broadcast_object_list(box, src=0)
        found: _T = box[0]
        return found


@contextlib.contextmanager
def _blaming_others() -> Iterator[None]:
    """Turn an error of the connection into one that says that another process is gone.

    Raises:
        LostProcessError: Another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:  # DistBackendError among them
        raise LostProcessError(_in_short(str(error))) from error


def _in_short(text: str) -> str:
    """Return what a library says of a connection, without the place in its source and its advice."""
    line = (text.splitlines() or [""])[0]
    return re.sub(r"^\[\S*:\d+\]\s*", "", line).partition(". This is typically")[0]
