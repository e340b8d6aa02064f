"""A run: the live parts that a recipe describes, put together."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any

import attrs
import torch

from trainkit import groups as grouping
from trainkit.contracts import Context
from trainkit.engine.loop import Losses
from trainkit.engine.saving import Saver
from trainkit.errors import DataError, RecipeError
from trainkit.events import Listener, listeners, order
from trainkit.hooks.figures import Figures
from trainkit.hooks.progress_chart import ProgressChart
from trainkit.hooks.time_limit import TimeLimit
from trainkit.loggers.metrics_file import MetricsFile
from trainkit.randomness import seed_everything
from trainkit.recipe.root import seconds_of
from trainkit.state import State

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn, optim

    from trainkit.contracts import Batch, LiveMetric, Outputs
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe

_LOGGER = logging.getLogger("trainkit")


@attrs.define
class Run:
    """Everything that the loop needs, live.

    Attributes:
        resolved: The recipe, complete, with where each value came from.
        state: What hooks see.
        optimizer: The one optimizer.
        stages: The parameter groups.
        losses: The weighted sum that is minimised.
        metrics: Figures of merit by their name in the recipe.
        inference: How validation gets from a batch to outputs.
        autocast: Makes the context of forward and loss.
        parts: Name -> live part that may have a state of its own, in calling order.
        saver: Writes the checkpoints.
        events: Event -> who listens.
        generators: States of the global random generators to begin with; None: as they are.
    """

    resolved: Resolved
    state: State
    optimizer: optim.Optimizer
    stages: grouping.Stages
    losses: Losses
    metrics: Mapping[str, LiveMetric]
    inference: Callable[[nn.Module, Batch], Outputs]
    autocast: Callable[[], AbstractContextManager[Any]]
    parts: dict[str, object]
    saver: Saver = attrs.field(init=False, default=attrs.Factory(Saver, takes_self=True))
    events: Mapping[str, tuple[Listener, ...]] = attrs.field(init=False, factory=dict)
    generators: dict[str, Any] | None = None

    @property
    def recipe(self) -> Recipe:
        """The settings."""
        return self.resolved.recipe

    def emit(self, event: str) -> None:
        """Call everybody who listens to an event."""
        for listener in self.events[event]:
            listener(self.state)

    def add(self, name: str, part: object) -> None:
        """Add a live part, which is called after all others."""
        self.parts[name] = part
        self.events = listeners(self.parts.values())


def build(resolved: Resolved, folder: Path) -> Run:
    """Make the live parts of a run.

    Args:
        resolved: The checked recipe.
        folder: The run folder.

    Raises:
        RecipeError: Something that only shows with the data and the model built.
        DataError: The data cannot be opened.
    """
    recipe = resolved.recipe
    context = Context(recipe.run.seed, choose_device(recipe.run.device), rank=0, world=1, folder=folder)
    by_itself = _threads()
    torch.set_num_threads(recipe.run.threads or by_itself)
    if recipe.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch demands it, of matrix products on CUDA
    torch.use_deterministic_algorithms(recipe.run.deterministic)
    seed_everything(recipe.run.seed)
    if doubt := repeatability_doubt(context.device, recipe.run.deterministic):
        _LOGGER.info(doubt)

    data = recipe.data.build(context)
    if data.batches_per_epoch < 1:
        raise DataError("the training data gives no batch; lower batch_size or validation_fraction")
    model = recipe.model.build(data).to(context.device)
    parameters, trains = grouping.assign(recipe, recipe.model, model)
    stages = grouping.stages(recipe, trains)
    optimizer = recipe.optimizer.build(
        [
            {"name": name, "params": list(parameters[name].values()), "lr": stage.lr, **stage.options}
            for name, stage in stages.items()
        ]
    )
    steps = ceil(data.batches_per_epoch / recipe.run.accumulate)
    live = grouping.Stages(stages, parameters, model, optimizer, steps, recipe.monitor)
    state = State(context, recipe.run.num_epochs(steps), model, data, live.groups, recipe.monitor, steps)
    losses = {name: (loss.weight, loss.build(data), loss.on_validation) for name, loss in recipe.losses.items()}
    metrics = {name: metric.build(data) for name, metric in recipe.metrics.items()}
    inference = recipe.inference.build(data)

    parts: dict[str, object] = {"data": data, "model": model, "inference": inference}
    parts |= {f"losses.{name}": function for name, (_, function, _) in losses.items()}
    parts |= {f"metrics.{name}": metric for name, metric in metrics.items()}
    hooks = {f"hooks.{name}": hook for name, hook in recipe.hooks.items()}
    hooks |= {f"loggers.{name}": logger for name, logger in recipe.loggers.items()}
    parts |= {name: hooks[name].build(context) for name in order(hooks)}
    if recipe.run.time_limit is not None:
        parts["time_limit"] = TimeLimit(recipe.run.time_limit, seconds_of(recipe.run.time_limit) or 0.0)
    parts |= {
        "figures": Figures(),
        "metrics_file": MetricsFile(),
        "progress_chart": ProgressChart(),
    }
    run = Run(
        resolved=resolved,
        state=state,
        optimizer=optimizer,
        stages=live,
        losses=Losses(losses),
        metrics=metrics,
        inference=inference,
        autocast=_autocast(recipe.run.precision, context.device),
        parts=parts,
    )
    run.add("saver", run.saver)
    return run


@cache
def _threads() -> int:
    """Return how many threads torch would use by itself, before a run in this process said otherwise."""
    return torch.get_num_threads()


def choose_device(name: str) -> torch.device:
    """Return the device that a recipe names; "auto" is the first accelerator there is, else the CPU.

    Raises:
        RecipeError: There is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(
            f'run.device = "{name}", but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here; '
            'use device = "auto" or "cpu"'
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError('run.device = "mps", but there is none here; use device = "auto" or "cpu"')
    return device


def repeatability_doubt(device: torch.device, deterministic: bool) -> str | None:
    """Return why a run on a device that is repeated, or stopped and resumed, may not be the same bit for bit.

    Args:
        device: The device.
        deterministic: Whether torch was told to take only operations that repeat.

    Returns:
        A sentence; None: there is no reason.
    """
    if device.type == "cuda" and not deterministic:
        return "on CUDA without run.deterministic = true, a run that is repeated or resumed is not the same bit for bit"
    if device.type == "mps":
        return "on MPS, a run that is repeated or resumed may not be the same bit for bit"
    return None


def _autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision == "fp32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
