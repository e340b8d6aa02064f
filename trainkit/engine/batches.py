"""Takes batches from the data: counts them, checks them, and moves them to the device."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import DataError, blame

if TYPE_CHECKING:
    from trainkit.contracts import Batch

_LOGGER = logging.getLogger("trainkit")


class BatchSource:
    """Yields the training batches of each epoch.

    Args:
        data: The opened data.
        name: Name of the data in messages, for example "data (msd)".
        num: Number of batches in an epoch.
        per_step: Number of batches in an optimizer step; the last step of an epoch may have fewer.
    """

    def __init__(self, data: Any, name: str, num: int, per_step: int) -> None:
        self._data, self._name, self._num, self._per_step = data, name, num, per_step
        self._looked_for_more = False

    def steps(self, epoch: int, first_step: int, seconds: dict[str, float]) -> Iterator[list[Batch]]:
        """Yield the batches of each step of an epoch.

        Args:
            epoch: Number of the epoch.
            first_step: Number of finished steps of the epoch.
            seconds: The time spent waiting for batches is added to ``seconds["data"]``.

        Raises:
            DataError: The data yields fewer batches than announced, or a batch without ``index``.
        """
        batches = self._counted(epoch, first_step * self._per_step, seconds)
        while step := list(islice(batches, self._per_step)):
            yield step

    def _counted(self, epoch: int, start: int, seconds: dict[str, float]) -> Iterator[Batch]:
        if start >= self._num:
            return
        batches = fetch(self._data.train(epoch, start), self._name, "train")
        for number in range(start, self._num):
            began = perf_counter()
            batch = next(batches, None)
            seconds["data"] += perf_counter() - began
            if batch is None:
                raise DataError(
                    f"{self._name} yielded {number} of the {self._num} batches that it announced for epoch {epoch}\n"
                    "batches_per_epoch must be the number of batches that train yields"
                )
            yield batch
        if not self._looked_for_more:  # only once, because it may make another batch
            self._looked_for_more = True
            if next(batches, None) is not None:
                _LOGGER.warning(
                    "%s yields more than the %d batches that it announced for an epoch; the others are not used",
                    self._name,
                    self._num,
                )


def fetch(batches: Iterable[Batch], name: str, method: str) -> Iterator[Batch]:
    """Yield the batches of data, after checking that each has the numbers of its items.

    Args:
        batches: What a method of the data returned.
        name: Name of the data in messages.
        method: Name of the method.

    Raises:
        DataError: A batch has no ``index``; the message names the data.
        PartError: The data failed.
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator, None)
        except Exception as error:
            blame(error, f"{name}, in {method}")
        if batch is None:
            return
        if "index" not in batch:
            raise DataError(
                f'{name} yielded a batch without "index"; it has {", ".join(map(str, batch))}\n'
                'each batch needs "index", an integer tensor (B,) with the numbers of its items'
            )
        yield batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with all its tensors on a device, including those in lists, tuples and mappings.

    A tensor that is on the device already is not copied.
    """
    if device.type == "cpu":
        return batch
    return {key: _moved(value, device) for key, value in batch.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(each, device) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(_moved(each, device) for each in value)
    return value
