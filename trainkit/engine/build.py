"""Builds a run from a checked recipe: opens the data, and builds every part."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from functools import partial
from math import ceil
from numbers import Integral
from typing import TYPE_CHECKING

import torch

from trainkit.contracts import Context
from trainkit.engine.about import about
from trainkit.engine.average import WeightAverage
from trainkit.engine.batches import BatchSource, with_channels_last
from trainkit.engine.compiling import Compilation, compile_model
from trainkit.engine.devices import (
    autocast_of,
    choose_device,
    repeatability_doubt,
    scaler_of,
    set_up_torch,
    slow_precision,
)
from trainkit.engine.every_run.busy_cpus import BusyCpus
from trainkit.engine.every_run.cases_file import CasesFile
from trainkit.engine.every_run.figures import Figures
from trainkit.engine.every_run.initial_weights import BeginWithWeights, group_of_names
from trainkit.engine.every_run.metrics_file import MetricsFile
from trainkit.engine.every_run.outcome import Outcome
from trainkit.engine.every_run.progress_chart import ProgressChart
from trainkit.engine.every_run.requests import Requests
from trainkit.engine.every_run.saving import SaveByTime, Saver, SavingByFirst, facts_of
from trainkit.engine.every_run.skipped_steps import SkippedSteps
from trainkit.engine.every_run.time_limit import TimeLimit
from trainkit.engine.every_run.waiting import Waiting
from trainkit.engine.every_run.watched_values import WatchedValues
from trainkit.engine.fingerprint import data_fingerprint
from trainkit.engine.graphs import graphs_of
from trainkit.engine.identity import identity_of
from trainkit.engine.live_run import LiveRun
from trainkit.engine.losses import Losses
from trainkit.engine.run_folder import note_cpu_wait
from trainkit.engine.stopwatch import Stopwatch
from trainkit.engine.variables import marks
from trainkit.errors import DataError, PartError, RecipeError, blame, exit_in_words
from trainkit.events import order
from trainkit.freed_memory import keep_freed_memory
from trainkit.garbage import not_collected
from trainkit.groups.assignment import assign
from trainkit.groups.device_rates import DeviceRates
from trainkit.groups.live import GroupController
from trainkit.groups.optimizers import build_optimizers
from trainkit.groups.plan import GroupPlan, RunLength, plan_groups
from trainkit.processes.exchange import Exchange
from trainkit.processes.place import ALONE
from trainkit.randomness import seed_everything
from trainkit.recipe.root import seconds_of
from trainkit.recomputing import recompute
from trainkit.single_volumes import convolve_single_volumes
from trainkit.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from trainkit.contracts import Hook, LiveData, LiveMetric
    from trainkit.processes.place import Place
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe

_LOGGER = logging.getLogger("trainkit")


def build(resolved: Resolved, folder: Path, finished: tuple[int, int] = (0, 0), place: Place = ALONE) -> LiveRun:
    """Build the live parts of a run.

    A process that is not the first of several has no parts that write something: no loggers, no hooks of the phases
    "log" and "persist", and nothing that fills the run folder.

    Args:
        resolved: The checked recipe.
        folder: The run folder.
        finished: Number of finished epochs and of their steps, if the run is resumed from a checkpoint.
        place: Which of the processes of the run this one is.

    Raises:
        RecipeError: The recipe has a mistake that can be found only after the data and the model are built.
        DataError: The data cannot be opened.
        PartError: A part cannot be built; the message names it.
    """
    recipe = resolved.recipe
    exchange = Exchange(place).with_shards(recipe.run.shards)
    device = choose_device(recipe.run.device, place)
    context = Context(recipe.run.seed, device, folder, exchange)
    _check_divided(recipe, exchange)
    set_up_torch(recipe.run.threads, recipe.run.deterministic)
    seed_everything(recipe.run.seed)
    if doubt := repeatability_doubt(context.device, recipe.run.deterministic):
        _LOGGER.info(doubt)

    data_name = f"data ({resolved.tree['data']['use']})"
    with _building(data_name):
        data = recipe.data.build(context)
    num_batches = _num_batches(data, data_name)
    with _building("model"), not_collected():  # it may import a large library, as losses may
        model = recipe.model.build(data)
        _check_built("model", model, isinstance(model, torch.nn.Module), "a torch.nn.Module")
        model = model.to(context.device)
    _apply_levers(recipe, model, context.device)
    if slow := slow_precision(recipe.run.precision, context.device):
        _LOGGER.warning(slow)
    parameters, trains = assign(recipe, recipe.model, model)
    steps = ceil(num_batches / recipe.run.accumulate)
    most = recipe.run.most_steps_per_epoch
    if is_cut := most is not None and most < steps:
        assert most is not None
        steps, num_batches = most, most * recipe.run.accumulate
    length = RunLength.of(recipe.run, steps, *finished)
    plans = plan_groups(recipe, trains, length)
    optimizers = build_optimizers(plans, parameters)
    graphs = graphs_of(recipe, context.device) if exchange.num_parts == 1 else None  # others are waited for in steps
    rates = None if graphs is None else DeviceRates(optimizers, context.device)
    groups = GroupController(plans, parameters, model, optimizers, steps, recipe.monitor, rates)
    state = State(context, length.epochs, model, data, groups.groups, recipe.monitor, steps, length.steps)
    identity = identity_of(folder)
    state.about = about(resolved, identity)
    with not_collected():
        losses = Losses.build(recipe.losses, data)
    metrics = _metrics(recipe, data, exchange)
    with _building("inference"):
        inference = recipe.inference.build(data)
        _check_built("inference", inference, callable(inference), "a function (model, batch) -> outputs")

    scaler = scaler_of(recipe.run.precision, context.device, model)
    parts: dict[str, object] = {"data": data, "model": model}
    if recipe.initial_weights is not None:
        group_of = group_of_names(model, parameters)
        parts["initial_weights"] = BeginWithWeights(recipe.initial_weights, recipe.model, group_of)
    parts["inference"] = inference
    parts |= {f"losses.{term.name}": term.function for term in losses.terms}
    parts |= {f"metrics.{name}": metric for name, metric in metrics.items()}
    hooks = _hooks(recipe, place)
    parts |= _built_hooks(hooks, context)
    average = None
    if recipe.ema is not None:
        with _building("ema"):
            parts["ema"] = average = WeightAverage(model, recipe.ema.decay)
    if scaler is not None:
        parts |= {"scaler": scaler, "skipped_steps": SkippedSteps()}
    parts |= _parts_of_settings(recipe)
    if place.is_first:
        longer = _options_of_a_longer_run(plans.values(), length.epochs, steps)
        parts |= {
            "requests": Requests(folder),
            "watched_values": WatchedValues(recipe),
            "figures": Figures(),
            "metrics_file": MetricsFile(),
            "progress_chart": ProgressChart(),
            "waiting": Waiting(recipe.data),
            "busy_cpus": BusyCpus(partial(note_cpu_wait, folder)),
            "outcome": Outcome(resolved.resume_options + longer),
        }
    tolerated: dict[str, type[Exception]] = {name: Exception for name, hook in hooks.items() if hook.phase == "log"}
    tolerated |= {"figures": Exception, "progress_chart": Exception}
    tolerated |= dict.fromkeys(("metrics_file", "requests", "busy_cpus"), OSError)
    if device.type == "cpu":
        keep_freed_memory()
    run = LiveRun(
        resolved=resolved,
        state=state,
        length=length,
        batches=BatchSource(data, data_name, num_batches, recipe.run.accumulate, len(exchange.parts), is_cut=is_cut),
        data_name=data_name,
        optimizers=optimizers,
        groups=groups,
        losses=losses,
        metrics=metrics,
        inference=inference,
        autocast=autocast_of(recipe.run.precision, context.device),
        scaler=scaler,
        graphs=graphs,
        average=average,
        identity=identity,
        parts=parts,
        tolerated=tolerated,
        watch=Stopwatch(computes_on_cpu=device.type == "cpu"),
    )
    run.fingerprint = data_fingerprint(recipe, data, data_name)
    run.variables = marks(resolved.tree, run.identity.id)
    facts_of(run)  # a failure is said now, not when the first checkpoint is written
    if not place.is_first:
        run.add("saver", SavingByFirst(run))
        return run
    saver = Saver(run)
    cases_file = CasesFile(metrics.values(), recipe.evaluated_splits(), saver.becomes_best)
    run.add("cases_file", cases_file, tolerated=Exception)  # before the checkpoint that its tables belong to
    run.add("saver", saver)
    return run


def _hooks(recipe: Recipe, place: Place) -> dict[str, Hook]:
    """Return the hooks and loggers that act in a process: name -> settings."""
    hooks = {f"hooks.{name}": hook for name, hook in recipe.hooks.items()}
    hooks |= {f"loggers.{name}": logger for name, logger in recipe.loggers.items()}
    if place.is_first:
        return hooks
    return {name: hook for name, hook in hooks.items() if hook.phase in ("mutate", "observe")}


def _built_hooks(hooks: dict[str, Hook], context: Context) -> dict[str, object]:
    parts: dict[str, object] = {}
    for name in order(hooks):
        with _building(name):
            parts[name] = part = hooks[name].build(context)
            _check_built(name, part, part is not None, "a part with methods on_<event>(state)")
    return parts


def _parts_of_settings(recipe: Recipe) -> dict[str, object]:
    """Return the parts of every process that a setting of ``[run]`` or ``[checkpoint]`` asks for."""
    parts: dict[str, object] = {}
    if recipe.run.compile:
        parts["compilation"] = Compilation()
    if recipe.run.time_limit is not None:
        parts["time_limit"] = TimeLimit(recipe.run.time_limit, seconds_of(recipe.run.time_limit) or 0.0)
    if recipe.checkpoint.every_steps or recipe.checkpoint.every_minutes:
        parts["save_by_time"] = SaveByTime(recipe.checkpoint.every_steps, recipe.checkpoint.every_minutes)
    return parts


def _options_of_a_longer_run(plans: Iterable[GroupPlan], epochs: int, steps_per_epoch: int) -> str:
    """Return the option without which a resume for more epochs asks how schedules continue; "" if it does not ask."""
    ending = [plan.phases[-1] for plan in plans if plan.epochs.stop == epochs]
    return " --on-extend restart" if any(phase.depends_on_length(steps_per_epoch) for phase in ending) else ""


@contextlib.contextmanager
def _building(part: str) -> Iterator[None]:
    """Make the message of an exception that is raised while a part is built name the part."""
    try:
        yield
    except Exception as error:
        blame(error, f"{part}, in build")
    except SystemExit as error:  # it would end the program, and a queue, as if all was well
        raise PartError(f"{part}, in build, {exit_in_words(error)}") from error


def _check_built(part: str, built: object, as_promised: bool, wanted: str) -> None:
    """Make sure that a part built what its kind promises.

    Raises:
        PartError: It did not.
    """
    if not as_promised:
        raise PartError(f"{part} must build {wanted}; it built {built!r}")


def _check_divided(recipe: Recipe, exchange: Exchange) -> None:
    """Make sure that all components can work in a run whose batches are divided.

    Raises:
        RecipeError: One cannot; the message names it.
    """
    if exchange.num_parts > 1 and not recipe.data.divides_batches:
        raise RecipeError(
            f"data: {type(recipe.data).__name__} does not say that it divides batches among processes or shards "
            "(divides_batches), so each would train on the same batches; run one process, without run.shards"
        )
    if exchange.num_parts > 1 and recipe.run.cuda_graph:
        raise RecipeError("run.cuda_graph = true: steps of several processes cannot be recorded; run one process")


def _metrics(recipe: Recipe, data: LiveData, exchange: Exchange) -> dict[str, LiveMetric]:
    metrics: dict[str, LiveMetric] = {}
    for name, metric in recipe.metrics.items():
        with _building(f"metrics.{name}"):
            metrics[name] = live = metric.build(data)
            complete = hasattr(live, "update") and hasattr(live, "compute")
            _check_built(f"metrics.{name}", live, complete, "a part with the methods update and compute")
            _check_metric(name, live, exchange)
    return metrics


def _check_metric(name: str, metric: LiveMetric, exchange: Exchange) -> None:
    """Make sure that what the processes accumulate in a metric can be brought together.

    Raises:
        RecipeError: It cannot.
    """
    if exchange.num_parts > 1 and not (hasattr(metric, "share") and hasattr(metric, "merge")):
        raise RecipeError(
            f"metrics.{name} has no methods share and merge, so it cannot be computed by several processes or shards; "
            "leave it out, or run one process, without run.shards"
        )


def _num_batches(data: LiveData, name: str) -> int:
    """Return the number of batches in an epoch that the opened data announces.

    Raises:
        DataError: The data announces no number of batches, or less than one.
    """
    num = getattr(data, "batches_per_epoch", None)
    if num is None:  # the former name of the attribute
        num = getattr(data, "steps_per_epoch", None)
        if num is not None:
            _LOGGER.warning("%s has the attribute steps_per_epoch, which is now called batches_per_epoch", name)
    if not isinstance(num, Integral) or isinstance(num, bool):
        raise DataError(f"{name} must have an attribute batches_per_epoch, a whole number; it is {num!r}")
    if num < 1:
        raise DataError(f"{name} has no batch to train on; lower batch_size or validation_fraction")
    return int(num)


def _apply_levers(recipe: Recipe, model: torch.nn.Module, device: torch.device) -> None:
    """Set how the model lies in memory and is computed, as ``[run]`` and the device say.

    Raises:
        RecipeError: A setting cannot be applied to the model.
    """
    if recipe.run.channels_last:
        placed = [each for each in (*model.parameters(), *model.buffers()) if with_channels_last(each) is not each]
        if not placed:
            raise RecipeError(
                "run.channels_last = true, but the model has no weights of convolutions: it has no effect"
            )
        for tensor in placed:
            tensor.data = with_channels_last(tensor.data)
    if device.type == "cpu" and not recipe.run.compile:
        convolve_single_volumes(model)
    if recipe.run.activation_checkpointing and not recompute(recipe.model.recomputed_blocks(model)):
        raise RecipeError(
            "run.activation_checkpointing = true, but the model names no block whose activations can be computed again"
        )
    if recipe.run.compile:
        if found := [name for name, each in model.named_parameters() if each.is_complex()]:
            raise RecipeError(
                f"run.compile = true, but the parameter {found[0]} is complex: torch.compile leaves out complex "
                "numbers or, in some versions, compiles them to wrong results"
            )
        compile_model(model)
