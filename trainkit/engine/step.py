"""Makes one optimizer step: forward and backward over its batches, then the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.engine.batches import to_device
from trainkit.errors import NonFiniteError, blame

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor
    from torch.amp import GradScaler

    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.losses import Losses
    from trainkit.groups.optimizers import Optimizers
    from trainkit.state import State

SKIPPED = "train/skipped"
"""Name of the share of an epoch's steps whose update was skipped; it is computed with ``precision = "fp16"``."""

_LEAST_SCALE = 2.0**-16
"""A scaler begins at 2^16 and halves its scale at each skipped step; below this one, no scale will help."""


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
        scaler: Scales the loss, so that small gradients do not vanish in fp16; None: the precision does not need it.
        channels_last: How batches lie in memory, see `to_device`.
    """

    def __init__(
        self,
        state: State,
        losses: Losses,
        optimizers: Optimizers,
        autocast: Callable[[], AbstractContextManager[Any]],
        scaler: GradScaler | None = None,
        channels_last: bool = False,
    ) -> None:
        self._state, self._losses, self._optimizers, self._autocast = state, losses, optimizers, autocast
        self._scaler, self._channels_last = scaler, channels_last

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
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizers)  # type: ignore[arg-type]  # it has what a scaler looks at

    def update(self) -> None:
        """Update the parameters, unless a gradient that was computed in fp16 is not finite.

        Raises:
            NonFiniteError: The gradients are not finite, however little the loss is scaled.
        """
        try:
            if self._scaler is None:
                self._optimizers.step()
                return
            updated = self._scaler.step(self._optimizers) is not None  # type: ignore[arg-type]
            self._scaler.update()
        except Exception as error:
            blame(error, "optimizer, in step")
        self._state.log(SKIPPED, float(not updated))
        if not updated:
            self._state.skipped.append(self._state.step)
            if (scale := self._scaler.get_scale()) < _LEAST_SCALE:
                raise NonFiniteError(
                    f"the gradients of step {self._state.step} and of those before it, although the loss was scaled "
                    f"down to {2 * scale:.3g} of it"
                )

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
                state.batch = to_device(batch, state.context.device, channels_last=self._channels_last)
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
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            blame(error, "model and losses, in backward")
