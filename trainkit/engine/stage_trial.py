"""Tries a step of each stage that is still to come, so that the time left is right before these stages were seen.

A trial changes nothing of the run, by construction: parameters and buffers of the model are copies meanwhile,
optimizers have an empty state and a learning rate of 0, the global random generators are put back, and so is what the
model's modules hold, what `State` holds, and which parameters need gradients. The batch is one that the training has
used. Events are told to the model alone. What parts keep in objects of their own cannot be put back from outside, so
model, losses and optimizers, and all that they are made of, have to allow it (`Component.steps_can_be_tried`).
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit.events import Live
from trainkit.memory import free_host_memory
from trainkit.randomness import generators_kept
from trainkit.recipe.promises import without_promise

if TYPE_CHECKING:
    from trainkit.contracts import Batch
    from trainkit.engine.live_run import LiveRun
    from trainkit.engine.stages import Stage, Stages
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_SECONDS = 0.5  # that a trial may take in any run, however short
_SHARE = 0.01  # of the run's time, in longer ones
_MOST_ROUNDS = 40
_COPIES = 6  # of the model's tensors that a trial may need: a copy, gradients, moments, and room
_STEP_EVENTS = ("step_start", "backward_end", "step_end")


class StageTrial(Live):
    """Part of every run that has more than one stage: tries those to come at the end of the first epoch of a start.

    Args:
        run: The run.
        stages: Its stages.
        known: Keys of the stages whose price earlier runs tell.

    Attributes:
        costs: Stage -> seconds of a step in the trial, the present stage among them; empty: there was no trial.
    """

    def __init__(self, run: LiveRun, stages: Stages, known: Sequence[str]) -> None:
        self._run, self._stages, self._known = run, stages, frozenset(known)
        self._batch: Batch | None = None
        self._is_over, self._last_end, self._of_step = False, 0.0, inf
        self.costs: Mapping[Stage, float] = {}

    def on_step_end(self, state: State) -> None:
        """Keep a batch to try steps with, and how long the shortest step takes: the first one warms things up."""
        if not self._is_over:
            now = perf_counter()
            if self._batch is None:
                self._batch = state.batch
            else:
                self._of_step = min(self._of_step, now - self._last_end)
            self._last_end = now

    def on_checkpoint(self, state: State) -> None:
        """Try the stages to come after the first epoch."""
        batch = self._batch
        if self._is_over or batch is None or state.steps_in_epoch or not state.epoch:
            return
        self._is_over, self._batch = True, None
        if state.epoch == state.epochs or state.stop_reason is not None or state.interrupted:
            return
        of_step = self._of_step if self._of_step < inf else self._run.watch.laps["steps"]
        present = self._stages.at(state.epoch - 1)
        wanted = {
            stage: begin
            for begin, _, stage in reversed(list(self._stages.between(state.epoch, state.epochs)))
            if stage != present and stage.changes == present.changes and stage.key not in self._known
        }
        rest = of_step * state.steps_per_epoch * (state.epochs - state.epoch)
        if not wanted or not may_be_tried(self._run):
            return
        with self._run.watch.during("starting"):
            try:
                epochs = {present: state.epoch - 1, **wanted}
                self.costs = cost_of_steps(self._run, batch, epochs, max(_SECONDS, _SHARE * rest), of_step)
            except Exception as error:  # what matters to the run will be raised in it
                _LOGGER.info("what later stages cost could not be tried: %s: %s", type(error).__name__, error)


def may_be_tried(run: LiveRun) -> bool:
    """Return whether steps can be tried without changing anything."""
    model, optimizers = run.state.model, run.optimizers.members.values()
    losses = [f"losses.{term.name}" for term in run.losses.terms]
    listening = {each.where.partition(",")[0] for event in _STEP_EVENTS for each in run.events[event]}
    tensors = [*model.parameters(), *model.buffers()]
    needed = _COPIES * sum(each.nbytes for each in tensors)
    return bool(
        not any(without_promise(run.recipe, "steps_can_be_tried"))
        and not run.recipe.run.compile
        and run.state.context.exchange.num_parts == 1
        and not any(name in run.parts_with_state or name in listening for name in losses)
        and not any(each._optimizer_step_pre_hooks or each._optimizer_step_post_hooks for each in optimizers)
        and needed < _free_memory(run.state.context.device)
    )


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_memory()


def cost_of_steps(
    run: LiveRun, batch: Batch, epochs: Mapping[Stage, int], most: float, of_step: float
) -> dict[Stage, float]:
    """Return what a step costs in each of some stages, in seconds; nothing if there is no time for it.

    Stages take turns, so that what else the machine does concerns all of them.

    Args:
        run: The run, after an epoch.
        batch: What to try with.
        epochs: Stage -> an epoch of it.
        most: Seconds that it may take.
        of_step: About how many seconds a step takes.
    """
    if 3 * of_step * len(epochs) > most:
        return {}
    began, took = perf_counter(), defaultdict[Any, list[float]](list)
    with put_back(run):
        for number in range(1 + _MOST_ROUNDS):
            for stage, epoch in epochs.items():
                _enter(run, stage, epoch)
                start = perf_counter()
                _step(run, batch)
                _wait(run.state.context.device)
                if number:  # the first round does what is done once in any case, such as an optimizer's imports
                    took[stage].append(perf_counter() - start)
            if not number:
                began = perf_counter()
            elif perf_counter() - began > most * number / (number + 1):
                break
    return {stage: median(seconds) for stage, seconds in took.items()}


def _enter(run: LiveRun, stage: Stage, epoch: int) -> None:
    """Let the groups of a stage train, with their optimizers."""
    for name, group in run.state.groups.items():
        for parameter in group.parameters.values():
            parameter.requires_grad_(name in stage.groups)
            parameter.grad = None
    run.groups.train_mode()
    run.optimizers.choose({run.groups.plans[name].phase_at(epoch).optimizer_name for name in stage.groups})


def _step(run: LiveRun, batch: Batch) -> None:
    state = run.state
    run.optimizers.zero_grad()
    state.batch = batch
    _tell_model(run, "step_start")
    for _ in range(run.recipe.run.accumulate):
        with run.autocast():
            state.outputs = outputs = state.model(batch)
            state.loss, _ = run.losses.of_batch(outputs, batch, state.model)
        state.loss.backward()  # type: ignore[no-untyped-call]
    _tell_model(run, "backward_end")
    run.optimizers.step()
    _tell_model(run, "step_end")


def _tell_model(run: LiveRun, event: str) -> None:
    for listener in run.events[event]:
        if listener.where.startswith("model,"):
            listener.call(run.state)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def put_back(run: LiveRun) -> Iterator[None]:
    """Give a run, between two epochs, what it had before, whatever steps do meanwhile; see the module's docstring."""
    model, optimizers = run.state.model, list(run.optimizers.members.values())
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    values, needed = [each.data for each in tensors], [(each.requires_grad, each.grad) for each in parameters]
    modules = [(module, _held_by(module)) for module in model.modules()]
    settings = [(each, each.state, [dict(group) for group in each.param_groups]) for each in optimizers]
    state = {name: _copied(getattr(run.state, name)) for name in attrs.fields_dict(type(run.state))}
    try:
        for tensor in tensors:
            tensor.data = tensor.data.clone()
        for optimizer in optimizers:
            optimizer.state = defaultdict(dict)
            for group in optimizer.param_groups:
                group["lr"] = 0.0 * group["lr"]
        run.state.means = {}
        with generators_kept():
            yield
    finally:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.data = value
        for parameter, (needs, gradient) in zip(parameters, needed, strict=True):
            parameter.requires_grad_(needs)
            parameter.grad = gradient
        for module, held in modules:
            _give_back(module, held)
        for optimizer, memory, groups in settings:
            optimizer.state = memory
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(before)
        for name, known in state.items():
            _restore(run.state, name, *known)


def _held_by(module: torch.nn.Module) -> dict[str, Any]:
    """Return what a module holds: its attributes, and copies of the dicts in which it has tensors and modules."""
    return {name: dict(value) if type(value) is dict else value for name, value in vars(module).items()}


def _give_back(module: torch.nn.Module, held: Mapping[str, Any]) -> None:
    now = vars(module)
    for name in [each for each in now if each not in held]:
        del now[name]
    for name, value in held.items():
        if type(value) is dict and type(now.get(name)) is dict:
            now[name].clear()
            now[name].update(value)
        else:
            now[name] = value


def _copied(value: Any) -> tuple[Any, Any]:
    """Return a value, and if it can be changed in place, a copy of what it holds."""
    return value, type(value)(value) if type(value) in (list, dict) else None


def _restore(state: State, name: str, same: Any, content: Any) -> None:
    setattr(state, name, same)
    if isinstance(content, list):
        same[:] = content
    elif isinstance(content, dict):
        same.clear()
        same.update(content)
