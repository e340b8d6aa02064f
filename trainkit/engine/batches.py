"""Batches on their way from the data to a step: counted, checked, and moved to the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import DataError, blame

if TYPE_CHECKING:
    from trainkit.contracts import Batch

_LOGGER = logging.getLogger("trainkit")

_NO_MORE: Any = object()
_WANTED = 'a batch is a mapping; its "index", an integer tensor (B,), says which items it holds, at least one'


class BatchSource:
    """The training batches of one epoch after the other.

    Args:
        data: The opened data.
        name: What messages call it: "data (msd)".
        num: Batches of an epoch.
        per_step: Batches of an optimizer step; the last step of an epoch may have fewer.
    """

    def __init__(self, data: Any, name: str, num: int, per_step: int) -> None:
        self._data, self._name, self._num, self._per_step = data, name, num, per_step
        self._looked_for_more = False

    def steps(self, epoch: int, first_step: int, seconds: dict[str, float]) -> Iterator[list[Batch]]:
        """Yield the batches of each step of an epoch.

        Args:
            epoch: Number of the epoch.
            first_step: Steps of the epoch that are finished.
            seconds: ``seconds["data"]`` grows by the time that batches let one wait.

        Raises:
            DataError: There are fewer batches than the data announced, or one is not as `check_batch` wants it.
            PartError: The data failed.
        """
        batches = self._counted(epoch, first_step * self._per_step, seconds)
        while step := list(islice(batches, self._per_step)):
            yield step

    def _counted(self, epoch: int, start: int, seconds: dict[str, float]) -> Iterator[Batch]:
        if start >= self._num:
            return
        batches = batches_of(lambda: self._data.train(epoch, start), self._name, "train")
        for number in range(start, self._num):
            began = perf_counter()
            batch = next(batches, None)
            seconds["data"] += perf_counter() - began
            if batch is None:
                raise DataError(
                    f"{self._name} gave {number} of the {self._num} batches that it announced for epoch {epoch}\n"
                    "its batches_per_epoch must be the number of batches that train yields"
                )
            yield batch
        if not self._looked_for_more:  # once: to look costs the making of a batch
            self._looked_for_more = True
            if next(batches, None) is not None:
                _LOGGER.warning(
                    "%s gives more than the %d batches that it announced for an epoch; the others are not used",
                    self._name,
                    self._num,
                )


def batches_of(make: Callable[[], Iterable[Batch]], name: str, method: str) -> Iterator[Batch]:
    """Yield the batches that a method of the data gives, each checked.

    Args:
        make: Calls the method.
        name: What messages call the data: "data (msd)".
        method: The method's name, for messages.

    Raises:
        DataError: A batch is not as `check_batch` wants it.
        PartError: The data failed.
    """
    try:
        iterator = iter(make())
    except Exception as error:
        blame(error, f"{name}, in {method}")
    while True:
        try:
            batch = next(iterator, _NO_MORE)
        except Exception as error:
            blame(error, f"{name}, in {method}")
        if batch is _NO_MORE:
            return
        check_batch(batch, name)
        yield batch


def check_batch(batch: Any, name: str) -> None:
    """Make sure that a batch is a mapping that says which items it holds.

    Raises:
        DataError: It is not; the message names the data.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"{name} gave a batch that is no mapping, but {type(batch).__name__}\n{_WANTED}")
    if "index" not in batch:
        raise DataError(f'{name} gave a batch without "index"; it has {", ".join(map(str, batch))}\n{_WANTED}')
    index = batch["index"]
    try:
        items = len(index)
    except TypeError:
        items = 0
    if items == 0:
        raise DataError(f'{name} gave a batch whose "index" holds no items: {index!r}\n{_WANTED}')


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with all its tensors on a device, those in lists, tuples and mappings too.

    A tensor that is there already is not copied.
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
