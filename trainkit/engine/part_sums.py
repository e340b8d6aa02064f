"""Adds up what the parts of a step computed, over all processes: gradients, values, and running statistics of norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.errors import PartError
from trainkit.processes.tree import TreeSum

if TYPE_CHECKING:
    from trainkit.processes.exchange import Exchange


class PartSums:
    """Adds up the gradients and the values of a step's parts.

    Which parameters have gradients follows from the groups that train, so it is the same in every process. A model may
    leave some of them out; the first step of an epoch decides which, in all parts together.

    Args:
        exchange: What the processes exchange.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parameters: dict[str, nn.Parameter] = {}
        self._used: frozenset[str] | None = None
        self._sums: dict[torch.dtype, TreeSum] = {}
        self._seen: set[str] = set()

    def enter_epoch(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Set which parameters train in this epoch."""
        self._parameters, self._used = dict(parameters), None

    def take(self, values: Tensor) -> None:
        """Take the gradients of a part from the parameters, together with values (V,) of it.

        Raises:
            PartError: A parameter has a gradient that had none in the epoch's first step.
        """
        grads = [each.grad for each in self._parameters.values()]
        self._seen |= {name for name, grad in zip(self._parameters, grads, strict=True) if grad is not None}
        pieces = [
            torch.zeros_like(each) if grad is None else grad
            for each, grad in zip(self._parameters.values(), grads, strict=True)
        ]
        for dtype, flat in _flattened([*pieces, values]).items():
            self._sums.setdefault(dtype, TreeSum()).add(flat)
        for each in self._parameters.values():
            each.grad = None

    def finish(self, num_values: int, dtype: torch.dtype) -> Tensor:
        """Give the parameters the gradients of the whole step, and return the sums of the values (V,).

        Args:
            num_values: How many values each part had.
            dtype: Their dtype.
        """
        totals = {kind: self._exchange.sum_of_processes(each.total()) for kind, each in self._sums.items()}
        self._sums = {}
        used = self._agreed()
        places = dict.fromkeys(totals, 0)
        for name, parameter in self._parameters.items():
            kind, number = _real(parameter.dtype), parameter.numel() * (2 if parameter.is_complex() else 1)
            flat = totals[kind][places[kind] : places[kind] + number]
            places[kind] += number
            if name in used:
                grad = torch.empty_like(parameter)  # lies in memory like the parameter
                (torch.view_as_real(grad) if grad.is_complex() else grad).copy_(
                    flat.view(*parameter.shape, 2) if grad.is_complex() else flat.view(parameter.shape)
                )
                parameter.grad = grad
        return totals[dtype][places[dtype] : places[dtype] + num_values]

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
        self._counts: list[int] = []
        self._after: list[list[Tensor]] = []

    def start_step(self) -> None:
        """Remember the statistics."""
        self._before = [each.clone() for each in self._statistics()]
        self._counts = [int(each) for each in self._numbers()]
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
            if int(number) > before:
                number.fill_(before + batches_per_part)

    def _statistics(self) -> list[Tensor]:
        return [each for layer in self.layers for each in (layer.running_mean, layer.running_var) if each is not None]

    def _numbers(self) -> list[Tensor]:
        return [layer.num_batches_tracked for layer in self.layers if layer.num_batches_tracked is not None]


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _flattened(tensors: Sequence[Tensor]) -> dict[torch.dtype, Tensor]:
    """Return the numbers of all tensors of each dtype in a row; complex numbers are two real ones."""
    of_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        of_dtype.setdefault(real.dtype, []).append(real.reshape(-1))
    return {dtype: torch.cat(each) for dtype, each in of_dtype.items()}
