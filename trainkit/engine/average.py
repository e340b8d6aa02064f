"""Averages the weights of a run over its updates (``[ema]``), and evaluates the model with the average.

The averaged weights lie beside the model. For an evaluation, the two change places: parameters and buffers of the model
point to the averaged values until it is over. So everything that a model keeps beside its weights, such as how fine its
encoding is in this epoch, holds for both, and no weight is copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainkit.events import Live

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit.state import State


class WeightAverage(Live):
    """Part of runs with ``[ema]``: the exponential moving average of the model's parameters and buffers.

    With W the weights after update n = 0, 1, 2, …, the average is W for n = 0, and then d·average + (1 - d)·W, where
    d = min(decay, (1 + n) / (10 + n)): at first it covers about the last tenth of the updates. Buffers that are not
    floating-point, such as BatchNorm's count of batches, are those of the model.

    Args:
        model: The model.
        decay: The decay d of later updates, 0 < d < 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=self._take_in, use_buffers=True)
        self._decay = decay

    def on_step_end(self, state: State) -> None:
        """Take in the weights, unless the step was skipped. All hooks that change weights were called before."""
        if state.updated:
            self._averaged.update_parameters(self._model)

    def _take_in(self, averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor | int) -> None:
        """Take in the tensors of one type; torch's `AveragedModel` calls this.

        Args:
            averaged: The averages.
            current: The weights.
            number: Of updates, on the device of the weights: to read it there would wait for the device.
        """
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            n = int(self._averaged.n_averaged)  # the same, on the CPU
            average = get_ema_multi_avg_fn(min(self._decay, (1 + n) / (10 + n)))  # type: ignore[no-untyped-call]
            average(averaged, current, number)
        else:  # a fraction of a count, or of an index, would be rounded down
            torch._foreach_copy_(list(averaged), list(current))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights; afterwards, it has its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for mine, its in zip(_tensors(self._averaged.module), _tensors(self._model), strict=True):
            mine.data, its.data = its.data, mine.data

    def content(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the average, see `trainkit.checkpoint.content.SavedAverage`."""
        return {"model": self._averaged.module.state_dict(), "updates": int(self._averaged.n_averaged)}

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """Restore what `content` returned.

        Args:
            saved: The content; None: the average begins with the weights that the model has now.
        """
        self._averaged.module.load_state_dict(self._model.state_dict() if saved is None else saved["model"])
        self._averaged.n_averaged.fill_(0 if saved is None else saved["updates"])


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
