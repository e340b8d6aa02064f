"""Builds a run from a checked recipe: opens the data, and builds every part."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import ceil
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch

from trainkit.contracts import Context
from trainkit.engine.about import about
from trainkit.engine.average import WeightAverage
from trainkit.engine.batches import BatchSource, with_channels_last
from trainkit.engine.compiling import Compilation, compile_model
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
from trainkit.engine.identity import identity_of
from trainkit.engine.live_run import LiveRun
from trainkit.engine.losses import Losses
from trainkit.engine.variables import marks
from trainkit.errors import DataError, PartError, RecipeError, blame, exit_in_words
from trainkit.events import order
from trainkit.groups.assignment import assign
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
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trainkit.contracts import LiveData, LiveMetric
    from trainkit.processes.place import Place
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe

_LOGGER = logging.getLogger("trainkit")

_NATIVE = ("avx512", "amx")
"""Sets of instructions of a CPU that may have some for 16 bits."""

_NOT_SCALED = (torch.float16, torch.bfloat16, torch.complex32, torch.complex64, torch.complex128)


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
    torch.set_num_threads(recipe.run.threads or _default_threads())
    if recipe.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for matrix products on CUDA
    if recipe.run.deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(recipe.run.deterministic)
    seed_everything(recipe.run.seed)
    if doubt := repeatability_doubt(context.device, recipe.run.deterministic):
        _LOGGER.info(doubt)

    data_name = f"data ({resolved.tree['data']['use']})"
    with _building(data_name):
        data = recipe.data.build(context)
    num_batches = _num_batches(data, data_name)
    with _building("model"):
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
    groups = GroupController(plans, parameters, model, optimizers, steps, recipe.monitor)
    state = State(context, length.epochs, model, data, groups.groups, recipe.monitor, steps, length.steps)
    identity = identity_of(folder)
    state.about = about(resolved, identity)
    losses = Losses.build(recipe.losses, data)
    metrics = {}
    for name, metric in recipe.metrics.items():
        with _building(f"metrics.{name}"):
            metrics[name] = live = metric.build(data)
            complete = hasattr(live, "update") and hasattr(live, "compute")
            _check_built(f"metrics.{name}", live, complete, "a part with the methods update and compute")
            _check_metric(name, live, exchange)
    with _building("inference"):
        inference = recipe.inference.build(data)
        _check_built("inference", inference, callable(inference), "a function (model, batch) -> outputs")

    scaler = _scaler(recipe.run.precision, context.device, model)
    parts: dict[str, object] = {"data": data, "model": model}
    if recipe.initial_weights is not None:
        group_of = group_of_names(model, parameters)
        parts["initial_weights"] = BeginWithWeights(recipe.initial_weights, recipe.model, group_of)
    parts["inference"] = inference
    parts |= {f"losses.{term.name}": term.function for term in losses.terms}
    parts |= {f"metrics.{name}": metric for name, metric in metrics.items()}
    hooks = {f"hooks.{name}": hook for name, hook in recipe.hooks.items()}
    hooks |= {f"loggers.{name}": logger for name, logger in recipe.loggers.items()}
    if not place.is_first:
        hooks = {name: hook for name, hook in hooks.items() if hook.phase in ("mutate", "observe")}
    for name in order(hooks):
        with _building(name):
            parts[name] = part = hooks[name].build(context)
            _check_built(name, part, part is not None, "a part with methods on_<event>(state)")
    average = None
    if recipe.ema is not None:
        with _building("ema"):
            parts["ema"] = average = WeightAverage(model, recipe.ema.decay)
    if scaler is not None:
        parts |= {"scaler": scaler, "skipped_steps": SkippedSteps()}
    if recipe.run.compile:
        parts["compilation"] = Compilation()
    if recipe.run.time_limit is not None:
        parts["time_limit"] = TimeLimit(recipe.run.time_limit, seconds_of(recipe.run.time_limit) or 0.0)
    if recipe.checkpoint.every_steps or recipe.checkpoint.every_minutes:
        parts["save_by_time"] = SaveByTime(recipe.checkpoint.every_steps, recipe.checkpoint.every_minutes)
    if place.is_first:
        parts |= {
            "requests": Requests(folder),
            "watched_values": WatchedValues(recipe),
            "figures": Figures(),
            "metrics_file": MetricsFile(),
            "progress_chart": ProgressChart(),
            "waiting": Waiting(recipe.data),
            "outcome": Outcome(
                resolved.resume_options + _options_of_a_longer_run(plans.values(), length.epochs, steps)
            ),
        }
    tolerated: dict[str, type[Exception]] = {name: Exception for name, hook in hooks.items() if hook.phase == "log"}
    tolerated |= {"figures": Exception, "progress_chart": Exception, "metrics_file": OSError, "requests": OSError}
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
        average=average,
        identity=identity,
        parts=parts,
        tolerated=tolerated,
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


@cache
def _default_threads() -> int:
    """Return how many threads torch uses by default; cached, because a run in this process may change the number."""
    return torch.get_num_threads()


def choose_device(name: str, place: Place = ALONE) -> torch.device:
    """Return the device that a recipe names; "auto" is CUDA or MPS if one is available, else the CPU.

    Of several processes on a machine, each has a CUDA device of its own.

    Raises:
        RecipeError: The device is not available on this machine.
    """
    if place.world > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        if place.local_rank >= torch.cuda.device_count():
            raise RecipeError(
                f"process {place.rank} is number {place.local_rank} on its machine, which has "
                f"{torch.cuda.device_count()} CUDA devices, and each process needs one of its own: start fewer "
                'processes, or set run.device = "cpu"'
            )
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
        return device
    if place.world > 1 and name.startswith("cuda:"):
        raise RecipeError(
            f'run.device = "{name}" names one device for {place.world} processes; with "cuda", each has one of its own'
        )
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
        raise RecipeError('run.device = "mps", but MPS is not available here; use device = "auto" or "cpu"')
    return device


def repeatability_doubt(device: torch.device, deterministic: bool) -> str | None:
    """Return why a run that is repeated or resumed on a device may give other bits.

    Args:
        device: The device.
        deterministic: Whether torch is set to use only deterministic operations.

    Returns:
        A sentence; None: there is no reason.
    """
    if device.type == "cuda" and not deterministic:
        return "on CUDA without run.deterministic = true, a run that is repeated or resumed is not the same bit for bit"
    if device.type == "mps":
        return "on MPS, a run that is repeated or resumed may not be the same bit for bit"
    return None


def slow_precision(precision: str, device: torch.device) -> str | None:
    """Return why a precision makes a run slower instead of faster; None: it is not known that it does.

    Convolutions of a CPU without instructions for bfloat16 take 2 to 9 times as long as in fp32, depending on the CPU.
    """
    if device.type != "cpu" or precision == "fp32":
        return None
    known = getattr(torch.cpu, "get_capabilities", dict)  # not in every version of torch that we support
    capabilities: dict[str, Any] = known()
    if capabilities.get("architecture") != "x86_64" or any(capabilities.get(f"{each}_{precision}") for each in _NATIVE):
        return None
    return (
        f'run.precision = "{precision}": this CPU has no instructions for it, and is several times slower with it; '
        'set run.precision = "fp32"'
    )


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


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context in which a model computes in a precision."""
    if precision == "fp32":
        return contextlib.nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return lambda: torch.autocast(device.type, dtype=dtype)


def _scaler(precision: str, device: torch.device, model: torch.nn.Module) -> torch.amp.GradScaler | None:
    """Return what scales the loss; None: the precision does not need it.

    Raises:
        RecipeError: The gradients of the model cannot be scaled.
    """
    if precision != "fp16":
        return None
    for name, parameter in model.named_parameters():
        if parameter.dtype in _NOT_SCALED:
            raise RecipeError(
                f'run.precision = "fp16", but the parameter {name} is {str(parameter.dtype).removeprefix("torch.")}: '
                "fp16 needs a scaled loss, and torch cannot scale such gradients; use bf16 or fp32"
            )
    return torch.amp.GradScaler(device.type)
