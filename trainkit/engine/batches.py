"""Takes batches from the data: counts them, checks them, and moves them to the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import DataError, blame
from trainkit.words import after_epochs

if TYPE_CHECKING:
    from trainkit.contracts import Batch
    from trainkit.engine.stopwatch import Stopwatch

_LOGGER = logging.getLogger("trainkit")

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_NO_MORE: Any = object()
_WANTED = 'a batch is a mapping; its "index", an integer tensor (B,), says which items it holds, at least one'


class BatchSource:
    """Yields the training batches of each epoch.

    Args:
        data: The opened data.
        name: Name of the data in messages, for example "data (msd)".
        num: Number of whole batches in an epoch.
        per_step: Number of whole batches in an optimizer step; the last step of an epoch may have fewer.
        parts: In how many pieces this process gets each whole batch, see `LiveData`.
        is_cut: Whether the data has more batches in an epoch, which are not used.
    """

    def __init__(self, data: Any, name: str, num: int, per_step: int, parts: int = 1, *, is_cut: bool = False) -> None:
        self._data, self._name, self._num, self._per_step, self._parts = data, name, num, per_step, parts
        self._looked_for_more = is_cut

    def steps(self, epoch: int, first_step: int, watch: Stopwatch) -> Iterator[list[Batch]]:
        """Yield the batches of each step of an epoch, or this process's parts of them, batch by batch.

        Args:
            epoch: Number of the epoch.
            first_step: Number of finished steps of the epoch.
            watch: The time spent waiting for batches is counted to "data".

        Raises:
            DataError: The data yields fewer batches than announced, or one that `check_batch` refuses.
            PartError: The data failed.
        """
        start = first_step * self._per_step
        if start >= self._num:
            return
        batches = batches_of(lambda: self._data.train(epoch, start), self._name, "train")
        step: list[Batch] = []
        first, announced = start * self._parts, self._num * self._parts
        number, before = first, watch.switch("data")
        for number, batch in zip(range(first + 1, announced + 1), batches):  # noqa: B905 (asks for no batch too many)
            step.append(batch)
            if len(step) == self._per_step * self._parts or number == announced:
                watch.switch(before)
                yield step
                step = []
                watch.switch("data")
        if number < announced:
            of_parts = "" if self._parts == 1 else f", in {self._parts} parts each"
            raise DataError(
                f"{self._name} yielded {number} of the {announced} batches that it announced for an epoch"
                f"{of_parts}, {after_epochs(epoch)}\nbatches_per_epoch must be the number of batches that train yields"
            )
        if not self._looked_for_more:  # only once, because it may make another batch
            self._looked_for_more = True
            if next(batches, None) is not None:
                _LOGGER.warning(
                    "%s yields more than the %d batches that it announced for an epoch; the others are not used",
                    self._name,
                    announced,
                )
        watch.switch(before)


def batches_of(make: Callable[[], Iterable[Batch]], name: str, method: str) -> Iterator[Batch]:
    """Yield the batches that a method of the data returns, after checking them.

    Args:
        make: Calls the method.
        name: Name of the data in messages.
        method: Name of the method.

    Raises:
        DataError: `check_batch` refuses a batch.
        PartError: The data failed.
    """
    try:
        iterator = iter(make())
    except Exception as error:
        blame(error, f"{name}, in {method}")
    is_first = True
    while True:
        try:
            batch = next(iterator, _NO_MORE)
        except Exception as error:
            blame(error, f"{name}, in {method}")
        if batch is _NO_MORE:
            return
        if is_first or type(batch) is not dict or "index" not in batch:  # the others are like the first one
            check_batch(batch, name)
            is_first = False
        yield batch


def check_batch(batch: Any, name: str) -> None:
    """Check that a batch is a mapping that says which items it holds.

    Raises:
        DataError: It is not; the message names the data.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"{name} yielded a batch that is not a mapping but {type(batch).__name__}\n{_WANTED}")
    if "index" not in batch:
        raise DataError(f'{name} yielded a batch without "index"; it has {", ".join(map(str, batch))}\n{_WANTED}')
    index = batch["index"]
    try:
        items = len(index)
    except TypeError:
        items = 0
    if items == 0:
        raise DataError(f'{name} yielded a batch whose "index" holds no items: {index!r}\n{_WANTED}')


def to_device(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """Return the batch with all its tensors on a device, including those in lists, tuples and mappings.

    A tensor that is on the device already is not copied.

    Args:
        batch: The batch.
        device: The device.
        channels_last: Whether images and volumes among the batch's own values get the channels of each place side by
            side in memory.
    """
    if device.type != "cpu":
        batch = each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))
    if channels_last:
        batch = {key: with_channels_last(value) for key, value in batch.items()}
    return batch


def with_channels_last(value: Any) -> Any:
    """Return an image or volume (floating-point, 4 or 5 axes) with its second axis last in memory; else the value."""
    if not isinstance(value, torch.Tensor) or value.ndim not in _CHANNELS_LAST or not value.is_floating_point():
        return value
    return value.contiguous(memory_format=_CHANNELS_LAST[value.ndim])


def each_tensor(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return a value with all its tensors changed, including those in lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each_tensor(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(each_tensor(each, change) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(each_tensor(each, change) for each in value)
    return value
