"""Makes one optimizer step: forward and backward over its batches, then the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.engine.batches import to_device
from trainkit.errors import blame

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.losses import Losses
    from trainkit.groups.optimizers import Optimizers
    from trainkit.state import State


class Step:
    """Computes the gradients for a step's batches, and updates the parameters.

    The loss of a step of several batches is the loss of all their items together: each `Loss` says how the losses of
    the batches are combined. If a loss needs sums over all batches, the outputs of all batches are kept until one
    backward pass, which takes as much memory as one large batch. Otherwise each batch has its own backward pass and is
    then released.

    Args:
        state: The run's state, in which ``batch``, ``outputs`` and ``loss`` are set.
        losses: The losses to minimise.
        optimizers: The optimizers, which update the parameters.
        autocast: Makes the context in which forward and loss run.
    """

    def __init__(
        self,
        state: State,
        losses: Losses,
        optimizers: Optimizers,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._state, self._losses, self._optimizers, self._autocast = state, losses, optimizers, autocast

    def gradients(self, batches: Sequence[Batch]) -> None:
        """Compute the gradients of the loss of these batches; ``state.batch`` is the first one, on the device."""
        state, losses = self._state, self._losses
        self._optimizers.zero_grad()
        if len(batches) == 1:
            batch = state.batch
            assert batch is not None
            with self._autocast():
                state.outputs = outputs = self._forward(batch)
                state.loss, values = losses.of_batch(outputs, batch, state.model)
            self._backward(state.loss)
        else:
            sizes = [len(batch["index"]) for batch in batches]
            shares = [size / sum(sizes) for size in sizes]
            whole = self._together if losses.needs_all_parts else self._one_by_one
            values = whole(batches, shares)
            if len(losses.terms) == 1:
                values = {}
        for name, value in values.items():
            state.log(f"train/{name}", value)

    def update(self) -> None:
        """Update the parameters."""
        try:
            self._optimizers.step()
        except Exception as error:
            blame(error, "optimizer, in step")

    def _one_by_one(self, batches: Sequence[Batch], shares: Sequence[float]) -> dict[str, Tensor]:
        state = self._state
        loss: Any = 0.0
        values: dict[str, Tensor] = {}
        for number, (batch, share) in enumerate(zip(self._on_device(batches), shares, strict=True)):
            with self._autocast():
                state.outputs = outputs = self._forward(batch)
                part, parts = self._losses.of_part(outputs, batch, state.model, share, first=number == 0)
            if not parts:
                continue  # every term counts once per step, and has been counted
            self._backward(part)
            loss = loss + part.detach()
            for name, value in parts.items():
                values[name] = values[name] + value.detach() if name in values else value.detach()
        state.loss = loss
        return values

    def _together(self, batches: Sequence[Batch], shares: Sequence[float]) -> dict[str, Tensor]:
        state = self._state
        kept: list[tuple[Outputs, Batch]] = []
        with self._autocast():
            for batch in self._on_device(batches):
                state.outputs = self._forward(batch)
                kept.append((state.outputs, batch))
            state.loss, values = self._losses.of_parts(kept, state.model, shares)
        self._backward(state.loss)
        return values

    def _on_device(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Put one batch after the other into ``state.batch``, where the first one is already."""
        state = self._state
        for number, batch in enumerate(batches):
            if number:
                state.batch = to_device(batch, state.context.device)
            assert state.batch is not None
            yield state.batch

    def _forward(self, batch: Batch) -> Outputs:
        try:
            outputs: Outputs = self._state.model(batch)
        except Exception as error:
            blame(error, "model, in forward")
        return outputs

    def _backward(self, loss: Tensor) -> None:
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            blame(error, "model and losses, in backward")
