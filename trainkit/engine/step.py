"""Makes one optimizer step: forward and backward over its batches, then the update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainkit.engine.agreement import check_divided
from trainkit.engine.batches import to_device
from trainkit.engine.part_sums import NormStatistics, PartSums
from trainkit.errors import NonFiniteError, blame
from trainkit.freed_memory import keep_large_arrays
from trainkit.randomness import generators_kept, random_seed, seed_everything

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor
    from torch.amp import GradScaler

    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.losses import Losses, SumsOfStep
    from trainkit.events import Listener
    from trainkit.groups.optimizers import Optimizers
    from trainkit.state import State

SKIPPED = "train/skipped"
"""Name of the share of an epoch's steps whose update was skipped; it is computed with ``precision = "fp16"``."""

_PART = 0x9A27  # keeps the random numbers of parts apart from others that are drawn for the same seed

_LEAST_SCALE = 2.0**-16
"""A scaler begins at 2^16 and halves its scale at each skipped step; below this one, no scale will help."""


class Step:
    """Computes the gradients for a step's batches, and updates the parameters.

    The loss of a step of several batches, or of batches that are divided among processes or shards, is the loss of all
    their items together: each `Loss` says how the losses of the parts are combined. If a loss needs sums over all
    parts, the outputs of all parts of this process are kept until the backward passes, which takes as much memory as
    one large batch. Otherwise each part has its own backward pass and is then released.

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
        self._exchange = state.context.exchange
        self._is_divided = self._exchange.num_parts > 1
        self._is_checked = False
        self._dtype = torch.float32 if state.context.device.type == "mps" else torch.float64  # of values
        self._sums = PartSums(self._exchange)
        self._norms = NormStatistics(state.model, self._exchange)

    def enter_epoch(self) -> None:
        """Take over which groups train in this epoch."""
        active = [group for group in self._state.groups.values() if group.active]
        self._sums.enter_epoch({name: each for group in active for name, each in group.parameters.items()})
        self.go_on()

    def left_of(self, events: Mapping[str, tuple[Listener, ...]]) -> tuple[Listener, ...]:
        """Return the listeners of ``step_end`` that still have to be called after `update`: here, all of them."""
        return events["step_end"]

    def leave_epoch(self) -> None:
        """Free memory for the evaluation, which needs no gradients."""
        state = self._state
        state.batch = state.outputs = state.loss = None
        self._optimizers.zero_grad()
        self.pause()

    def pause(self) -> None:
        """Take note that something else comes between two steps, for example an evaluation."""
        if self._state.context.device.type == "cpu":
            keep_large_arrays(keep=False)

    def go_on(self) -> None:
        """Take note that steps begin, or go on after something else."""
        if self._state.context.device.type == "cpu":
            keep_large_arrays(keep=True)

    def gradients(self, batches: Sequence[Batch]) -> None:
        """Compute the gradients of the loss of these batches; ``state.batch`` is the first one, on the device."""
        self._log(self._compute(batches))

    def _compute(self, batches: Sequence[Batch]) -> Mapping[str, Tensor]:
        """Compute the gradients, and return the value of each loss if there are several."""
        state, losses = self._state, self._losses
        self._optimizers.zero_grad()
        if len(batches) == 1 and not self._is_divided:
            batch = state.batch
            assert batch is not None
            with self._autocast():
                state.outputs = outputs = self._forward(batch)
                state.loss, values = losses.of_batch(outputs, batch, state.model)
            self._backward(state.loss)
        else:
            values = self._of_parts(batches)
            state.loss = losses.total(values)
            if len(losses.terms) == 1:
                values = {}
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizers)  # type: ignore[arg-type]  # it has what a scaler looks at
        return values

    def _log(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._state.log(f"train/{name}", value)

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

    def _of_parts(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Compute the gradients for several batches or parts of batches, and return the value of each loss.

        Args:
            batches: This process's parts of each batch of the step, batch by batch.
        """
        state, losses, exchange = self._state, self._losses, self._exchange
        num_parts = len(exchange.parts)
        own = [batch for part in range(num_parts) for batch in batches[part::num_parts]]  # part by part
        per_part = len(own) // num_parts
        if not self._is_checked:
            check_divided(exchange, own)
            self._is_checked = True
        sizes = [len(batch["index"]) for batch in own]
        items = exchange.total(sum(sizes))
        shares = [size / items for size in sizes]
        values: list[dict[str, Tensor]] = [{} for _ in range(num_parts)]
        if self._is_divided:
            self._norms.start_step()
        with generators_kept() if self._is_divided else contextlib.nullcontext():
            forwards = self._forwards(own, per_part)
            of_step: dict[str, SumsOfStep] = {}
            if losses.needs_all_parts:
                kept = list(forwards)
                with self._autocast():
                    of_step = losses.of_sums(
                        {name: exchange.sum_of_parts([sums[name].detach() for *_, sums in kept]) for name in kept[0][2]}
                    )
                forwards = iter(kept)
            for number, (outputs, batch, sums) in enumerate(forwards):
                part = number // per_part
                first = number == 0 and exchange.rank == 0
                with self._autocast():
                    piece, parts = losses.of_part(outputs, batch, state.model, shares[number], first, sums, of_step)
                if piece is not None:
                    self._backward(piece)
                for name, value in parts.items():
                    values[part][name] = values[part][name] + value if name in values[part] else value
                if self._is_divided and (number + 1) % per_part == 0:
                    self._sums.take(self._row(values[part]), adds_up=per_part == 1)
        if not self._is_divided:
            return values[0]
        self._norms.end_step(per_part)
        row = self._sums.finish()
        return {term.name: row[place] for place, term in enumerate(losses.terms)}

    def _forwards(self, own: Sequence[Batch], per_part: int) -> Iterator[tuple[Outputs, Batch, dict[str, Tensor]]]:
        """Yield outputs, batch and sums of each part of a step, with random numbers of its own if there are several."""
        state = self._state
        for number, batch in enumerate(self._on_device(own)):
            if self._is_divided:
                part, batch_of_step = self._exchange.parts[number // per_part], number % per_part
                seed_everything(random_seed(state.context.seed, _PART, state.step, batch_of_step, part))
            with self._autocast():
                state.outputs = outputs = self._forward(batch)
                sums = self._losses.sums(outputs, batch, state.model) if self._losses.needs_all_parts else {}
            if self._is_divided and (number + 1) % per_part == 0:
                self._norms.end_part()
            yield outputs, batch, sums

    def _row(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the value of each loss (L,); 0 for one that a part does not contribute to."""
        zero = torch.zeros((), device=self._state.context.device)
        return torch.stack([values.get(term.name, zero).to(self._dtype) for term in self._losses.terms])

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
