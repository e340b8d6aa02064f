"""The training loop.

    run_start
    while epochs are left:
        group_start / group_stop                   groups are switched on and off
        epoch_start
        for batch in data.train(epoch, start):
            step_start
            outputs = model(batch)
            loss = weighted sum of losses(outputs, batch, model)
            loss.backward()                        over several batches where gradients are accumulated
            backward_end
            optimizer.step()
            step_end
            checkpoint                             only when somebody asked to save or to stop
        for each split but "train", every few epochs:
            validation_start
            for batch in data.evaluate(split):
                outputs = inference(model, batch)
                validation_step_end
            validation_end
        schedules observe the metrics
        picture                                    every few epochs, and at the end
        epoch_end
        checkpoint
    run_end                                        however the run ended

Everything else (logging, checkpoints, early stopping, progress, a model's constraints) hangs on these events. On the
step path nothing is read from the device: values are accumulated there and read at the epoch's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from trainkit.randomness import generator_states, restore_generators
from trainkit.state import Running

if TYPE_CHECKING:
    from trainkit.contracts import Batch
    from trainkit.engine.run import Run


def train(run: Run) -> None:
    """Run what is left of a training, from wherever ``run.state`` stands.

    Raises:
        NonFiniteError: The loss or a parameter became NaN or infinite.
    """
    state = run.state
    run.emit("run_start")
    if run.generators is not None:
        restore_generators(run.generators)
    while state.epoch < state.epochs and state.stop_reason is None:
        _train_epoch(run)
        if state.stop_reason is not None:
            return  # asked for at a step: the resumed run does what is left of the epoch, validation included
        _finish_epoch(run)


def _train_epoch(run: Run) -> None:
    state, stages, optimizer, events = run.state, run.stages, run.optimizer, run.events
    model, losses, device, autocast = state.model, run.losses, state.context.device, run.autocast
    step_start, backward_end, step_end = events["step_start"], events["backward_end"], events["step_end"]
    accumulate = run.recipe.run.accumulate
    start = state.steps_in_epoch * accumulate
    left = state.data.batches_per_epoch - start

    state.seconds = dict.fromkeys(("data", "steps", "validation", "checkpoint"), 0.0)
    began = perf_counter()
    stages.enter(state.epoch, state.epoch_step, state.step)
    if start == 0:
        state.metrics, state.pictures = {}, {}
        state.running = {"train/loss": Running(must_be_finite=True)}
        for event, names in (("group_stop", stages.stopped(state.epoch)), ("group_start", stages.started(state.epoch))):
            for name in names:
                state.group = name
                run.emit(event)
        state.group = None
        run.emit("epoch_start")
    stages.train_mode()
    running = state.running["train/loss"]

    batches = _waited_for(state.data.train(state.epoch, start), state.seconds)
    for batch in batches:
        state.batch = batch = to_device(batch, device)
        for listener in step_start:
            listener(state)
        stages.tick(state.epoch, state.step)
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            state.outputs = outputs = model(batch)
            state.loss = loss = losses.total(outputs, batch, state)
        if accumulate == 1:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            _accumulate(run, batches, min(accumulate, left))
            left -= accumulate
        for listener in backward_end:
            listener(state)
        optimizer.step()
        state.step += 1
        running.add(state.loss.detach())
        for listener in step_end:
            listener(state)
        if state.save_reason is not None or state.stop_reason is not None:
            run.emit("checkpoint")
            if state.stop_reason is not None:
                break
    state.batch = state.outputs = state.loss = None
    optimizer.zero_grad(set_to_none=True)  # validation needs the memory, not the gradients
    state.seconds["steps"] = perf_counter() - began - state.seconds["data"]


def _accumulate(run: Run, batches: Iterator[Batch], number: int) -> None:
    """Add up the gradients of ``number`` batches, the first of which has gone forward, to those of their mean loss."""
    state = run.state
    assert state.loss is not None
    loss = state.loss / number
    loss.backward()  # type: ignore[no-untyped-call]
    mean = loss.detach()
    for batch in islice(batches, number - 1):
        state.batch = batch = to_device(batch, state.context.device)
        with run.autocast():
            state.outputs = outputs = state.model(batch)
            loss = run.losses.total(outputs, batch, state) / number
        loss.backward()  # type: ignore[no-untyped-call]
        mean = mean + loss.detach()
    state.loss = mean


def _waited_for(batches: Iterable[Batch], seconds: dict[str, float]) -> Iterator[Batch]:
    """Yield the batches, and add up how long they let one wait."""
    iterator = iter(batches)
    while True:
        began = perf_counter()
        batch = next(iterator, None)
        seconds["data"] += perf_counter() - began
        if batch is None:
            return
        yield batch


def _finish_epoch(run: Run) -> None:
    state, recipe = run.state, run.recipe
    state.metrics |= {name: running.mean() for name, running in state.running.items()}
    last = state.epoch + 1 == state.epochs
    began = perf_counter()
    if last or (state.epoch + 1) % recipe.validation.every_epochs == 0:
        before = generator_states()
        for split in recipe.data.splits():
            if split != "train" and not _validate(run, split):
                restore_generators(before)
                run.emit("checkpoint")  # as it stood after the epoch's last step
                return
    state.seconds["validation"] = perf_counter() - began
    state.metrics |= {f"lr/{name}": lr for name, lr in state.learning_rates().items()}
    run.stages.observe(state.epoch, state.step, state.metrics)
    if last or (recipe.pictures.every_epochs and (state.epoch + 1) % recipe.pictures.every_epochs == 0):
        run.emit("picture")
    run.emit("epoch_end")
    state.pictures = {}
    state.epoch += 1
    state.epoch_step = state.step
    run.emit("checkpoint")


@torch.no_grad()
def _validate(run: Run, split: str) -> bool:
    """Evaluate a split; return False if the run was interrupted meanwhile."""
    state = run.state
    state.split = split
    state.model.eval()
    run.emit("validation_start")
    totals: dict[str, torch.Tensor] = {}
    items = 0
    for batch in state.data.evaluate(split):
        if state.interrupted:
            return False
        state.batch = batch = to_device(batch, state.context.device)
        with run.autocast():
            state.outputs = outputs = run.inference(state.model, batch)
            values = run.losses.validation(outputs, batch, state.model)
        number = len(batch["index"])
        items += number
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value.double() * number
        for metric in run.metrics.values():
            metric.update(outputs, batch)
        for listener in run.events["validation_step_end"]:
            listener(state)
    state.metrics |= {f"{split}/{name}": float(total) / items for name, total in totals.items()}
    for metric in run.metrics.values():
        state.metrics |= {f"{split}/{name}": value for name, value in metric.compute().items()}
    run.emit("validation_end")
    state.batch = state.outputs = state.split = None
    return True


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on a device; what is there already is not copied."""
    if device.type == "cpu":
        return batch
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


class Losses:
    """The weighted sum of a recipe's losses.

    Args:
        parts: Name -> (weight, function, does it count on held-out data).
    """

    def __init__(self, parts: Mapping[str, tuple[float, Any, bool]]) -> None:
        self._parts = tuple((name, weight, function, held_out) for name, (weight, function, held_out) in parts.items())

    def total(self, outputs: Any, batch: Any, state: Any) -> torch.Tensor:
        """Return the scalar to be minimised; logs each term when there are several."""
        parts = self._parts
        if len(parts) == 1:
            _, weight, function, _ = parts[0]
            value: torch.Tensor = function(outputs, batch, state.model)
            return value if weight == 1.0 else weight * value
        total: Any = 0.0
        for name, weight, function, _ in parts:
            value = function(outputs, batch, state.model)
            state.log(f"train/{name}", value)
            total = total + weight * value
        return total  # type: ignore[no-any-return]

    def validation(self, outputs: Any, batch: Any, model: Any) -> dict[str, torch.Tensor]:
        """Return the total ("loss") over the terms that say something of held-out data, and each of several terms."""
        values = {n: (w, f(outputs, batch, model)) for n, w, f, held_out in self._parts if held_out}
        total = sum(weight * value for weight, value in values.values())
        terms = {name: value for name, (_, value) in values.items()} if len(self._parts) > 1 else {}
        return {"loss": torch.as_tensor(total)} | terms
