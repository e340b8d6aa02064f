"""Adds up what the parts of a step computed, over all processes: gradients, values, and running statistics of norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.errors import PartError
from trainkit.processes.tree import TreeSum

if TYPE_CHECKING:
    from trainkit.processes.exchange import Exchange

_ALIGNED = 16  # numbers: each gradient begins at an address for vector instructions


class PartSums:
    """Adds up the gradients and the values of a step's parts.

    Which parameters have gradients follows from the groups that train, so it is the same in every process. A model may
    leave some of them out; the first step of an epoch decides which, in all parts together.

    Gradients are moved as little as possible, since in a large network on small batches this takes as long as much of
    the computation. Of two parts that are added first, the gradients of the first one stay where they are, and the
    backward pass of the second one adds to them. Only if there are several processes are the sums copied, once, side by
    side into memory that is kept from step to step; there the optimizers find them.

    Args:
        exchange: What the processes exchange.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parameters: dict[str, nn.Parameter] = {}
        self._used: frozenset[str] | None = None
        self._seen: set[str] = set()
        self._values = TreeSum()
        self._waiting: list[tuple[int, _Gradients]] = []  # (level of the tree, sum), levels fall
        self._first: list[tuple[Tensor | None, int]] | None = None  # gradients that the next part adds to, and versions
        self._memory: _Memory | None = None

    def enter_epoch(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Set which parameters train in this epoch."""
        self._parameters, self._used, self._memory = dict(parameters), None, None

    def take(self, values: Tensor, adds_up: bool = False) -> None:
        """Take the gradients of a part from the parameters, together with values (V,) of it.

        Args:
            values: Its values; they may be changed.
            adds_up: Whether the next part, if there is one, has a single backward pass. It may then add its gradients
                to those of this one.

        Raises:
            PartError: A parameter has a gradient that had none in the epoch's first step.
        """
        grads = [each.grad for each in self._parameters.values()]
        self._seen |= {name for name, grad in zip(self._parameters, grads, strict=True) if grad is not None}
        self._values.add(values)
        level = 0
        if self._first is not None:
            _add_zeros(
                [grad for grad, before in zip(grads, self._first, strict=True) if _is_of_one_part(grad, *before)]
            )
            self._first, level = None, 1
        elif adds_up and not (self._waiting and self._waiting[-1][0] == 0):
            self._first = [(grad, 0 if grad is None else grad._version) for grad in grads]
            return
        while self._waiting and self._waiting[-1][0] == level:
            grads = _added(self._waiting.pop()[1], grads)
            level += 1
        self._waiting.append((level, grads))
        for each in self._parameters.values():
            each.grad = None

    def finish(self) -> Tensor:
        """Give the parameters the gradients of the whole step, and return the sums of the values (V,)."""
        if self._first is not None:  # the last part of an odd number has nothing to be added to
            self._waiting.append((0, [grad for grad, _ in self._first]))
            self._first = None
        _, grads = self._waiting.pop()
        while self._waiting:
            grads = _added(self._waiting.pop()[1], grads)
        if self._exchange.world > 1:
            self._memory = self._memory or _Memory(list(self._parameters.values()))
            self._memory.set(grads)
            for row in self._memory.rows:
                self._exchange.sum_of_processes(row)
            grads = list(self._memory.of_parameters)
        used = self._agreed()
        for (name, parameter), grad in zip(self._parameters.items(), grads, strict=True):
            parameter.grad = (torch.zeros_like(parameter) if grad is None else grad) if name in used else None
        return self._exchange.sum_of_processes(self._values.total())

    def _agreed(self) -> frozenset[str]:
        """Return which parameters had a gradient in a part of the epoch's first step, on any process."""
        seen, self._seen = self._seen, set()
        if self._used is None:
            found = self._exchange.largest([name in seen for name in self._parameters])
            self._used = frozenset(name for name, used in zip(self._parameters, found, strict=True) if used)
        if late := [name for name in self._parameters if name in seen and name not in self._used]:
            raise PartError(
                f"the parameter {late[0]} has a gradient in this step, but had none in the first one that this process "
                "made in the epoch; with several processes or shards, a model must use the same parameters in every "
                "step"
            )
        return self._used


class NormStatistics:
    """Gives the running statistics of norms, such as BatchNorm, the mean of what the parts of a step made of them.

    Each part begins with the statistics before the step.

    Args:
        model: The model.
        exchange: What the processes exchange.
    """

    def __init__(self, model: nn.Module, exchange: Exchange) -> None:
        self._exchange = exchange
        self.layers = [
            each for each in model.modules() if isinstance(each, _NormBase) and each.running_mean is not None
        ]
        self._before: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._after: list[list[Tensor]] = []

    def start_step(self) -> None:
        """Remember the statistics."""
        self._before = [each.clone() for each in self._statistics()]
        self._counts = [each.clone() for each in self._numbers()]
        self._after = []

    def end_part(self) -> None:
        """Take what a part made of them, and put back what they were."""
        current = self._statistics()
        self._after.append([each.clone() for each in current])
        for each, before in zip(current, self._before, strict=True):
            each.data.copy_(before)  # autograd, which keeps them for the backward pass, does not need their values

    def end_step(self, batches_per_part: int) -> None:
        """Set them to the mean over all parts.

        Args:
            batches_per_part: By how much a layer that trained has counted.
        """
        if not self.layers:
            return
        flat = [torch.cat([each.reshape(-1) for each in part]) for part in self._after]
        total = self._exchange.sum_of_parts(flat) / self._exchange.num_parts
        place = 0
        for each in self._statistics():
            each.data.copy_(total[place : place + each.numel()].view(each.shape))
            place += each.numel()
        for number, before in zip(self._numbers(), self._counts, strict=True):
            number.copy_(torch.where(number > before, before + batches_per_part, number))

    def _statistics(self) -> list[Tensor]:
        return [each for layer in self.layers for each in (layer.running_mean, layer.running_var) if each is not None]

    def _numbers(self) -> list[Tensor]:
        return [layer.num_batches_tracked for layer in self.layers if layer.num_batches_tracked is not None]


_Gradients = list["Tensor | None"]
"""The gradient of each parameter; None: it is 0."""


def _is_of_one_part(grad: Tensor | None, before: Tensor | None, version: int) -> bool:
    """Return whether a gradient is that of one of two parts alone.

    Args:
        grad: The gradient after the second part.
        before: That of the first part, to which the second one may have added.
        version: How often it had been changed by then.
    """
    return before is None or (grad is before and before._version == version)


def _added(sums: _Gradients, others: _Gradients) -> _Gradients:
    """Return the sum of gradients, in the memory of one of them."""
    both = [(own, other) for own, other in zip(sums, others, strict=True) if own is not None and other is not None]
    if both:
        torch._foreach_add_(*map(list, zip(*both, strict=True)))
    _add_zeros(
        [other if own is None else own for own, other in zip(sums, others, strict=True) if own is None or other is None]
    )
    return [other if own is None else own for own, other in zip(sums, others, strict=True)]


def _add_zeros(grads: Sequence[Tensor | None]) -> None:
    """Add the zeros of a part that has no gradients for them: it makes 0 of -0, as in the sum of processes."""
    if found := [each for each in grads if each is not None]:
        torch._foreach_add_(found, 0.0)


class _Memory:
    """Memory for the gradients of some parameters, side by side.

    Attributes:
        rows: All numbers of each dtype; complex numbers are two real ones.
        of_parameters: The gradient of each parameter, a view, which lies in memory like the parameter.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        length: dict[torch.dtype, int] = {}
        places = []
        for each in parameters:
            kind = each.dtype.to_real() if each.is_complex() else each.dtype
            places.append((kind, length.get(kind, 0)))
            number = each.numel() * (2 if each.is_complex() else 1)
            length[kind] = places[-1][1] + _ALIGNED * ceil(number / _ALIGNED)
        device = parameters[0].device if parameters else None
        of_kind = {kind: torch.zeros(number, dtype=kind, device=device) for kind, number in length.items()}
        self.rows = list(of_kind.values())
        self.of_parameters = []
        for each, (kind, start) in zip(parameters, places, strict=True):
            row = of_kind[kind][start:]
            numbers = torch.view_as_complex(row.view(-1, 2)) if each.is_complex() else row
            dense = torch.empty_like(each, device="meta")
            self.of_parameters.append(numbers.as_strided(each.shape, dense.stride()))

    def set(self, grads: Sequence[Tensor | None]) -> None:
        """Copy gradients; None: it is 0."""
        for own, grad in zip(self.of_parameters, grads, strict=True):
            own.zero_() if grad is None else own.copy_(grad)
