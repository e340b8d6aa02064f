"""Evaluates all splits except "train"; this is possible after any step."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from numbers import Real
from typing import TYPE_CHECKING

import torch

from trainkit.engine.agreement import agree, check_divided, shared_means
from trainkit.engine.batches import batches_of, to_device
from trainkit.errors import PartError, blame
from trainkit.randomness import generator_states, restore_generators

if TYPE_CHECKING:
    from trainkit.contracts import Batch, LiveMetric, Metric
    from trainkit.engine.live_run import LiveRun
    from trainkit.processes.exchange import Exchange

_LOGGER = logging.getLogger("trainkit")


def evaluate(run: LiveRun) -> bool:
    """Evaluate every split except "train", and put the values into ``state.metrics``.

    With ``[ema]``, the model has the averaged weights meanwhile, and its own again afterwards. The model is then in
    eval mode.

    Returns:
        False if the run was interrupted during the evaluation. The model, ``state.metrics`` and the random generators
        are then as they were before, and so is what a checkpoint saves of all parts: a hook may have changed the model
        for the evaluation, and it is not called to undo that.
    """
    state = run.state
    before, means, metrics = generator_states(), state.means, dict(state.metrics)
    run.before_evaluation = saved = run.states(copy=True)
    is_divided = state.context.exchange.num_parts > 1
    try:
        for name, split in run.recipe.evaluated_splits().items():
            state.means = {}  # values that hooks log now are averaged over this split
            with contextlib.ExitStack() as around:
                if run.average is not None and name == split:
                    around.enter_context(run.average.in_place())
                if run.recipe.run.compile:  # whole volumes have other shapes than patches, and would all be compiled
                    around.enter_context(torch.compiler.set_stance("force_eager"))
                done = _evaluate_split(run, name, split)
            if is_divided:  # each process may have drawn other random numbers
                restore_generators(before)
            if not done:
                restore_generators(before)
                state.metrics = metrics
                state.model.load_state_dict(saved["model"])
                return False
    finally:
        state.means = means
        state.batch = state.outputs = state.split = None
    run.before_evaluation = None
    state.evaluated_step = state.step
    return True


@torch.no_grad()
def _evaluate_split(run: LiveRun, name: str, split: str) -> bool:
    """Evaluate a split of the data, whose values begin with ``name``; return False if the run was interrupted."""
    state = run.state
    state.split = name
    state.model.eval()
    run.emit("validation_start")
    totals = _Totals(state.context.exchange)
    for batch in _until_all_are_done(run, batches_of(lambda: state.data.evaluate(split), run.data_name, "evaluate")):
        if state.interrupted:
            return False
        if batch is None:
            continue
        state.batch = batch = to_device(batch, state.context.device, channels_last=run.recipe.run.channels_last)
        with run.autocast():
            try:
                state.outputs = outputs = run.inference(state.model, batch)
            except Exception as error:
                blame(error, "inference")
            values = run.losses.on_validation(outputs, batch, state.model)
        totals.add(values, len(batch["index"]))
        for each, metric in run.metrics.items():
            try:
                metric.update(outputs, batch)
            except Exception as error:
                blame(error, f"metrics.{each}, in update")
        run.emit("validation_step_end")
    means = totals.means()
    if not means:
        _LOGGER.warning('%s has no batch in the split "%s": no value is computed for it', run.data_name, split)
    state.metrics |= {f"{name}/{key}": mean for key, mean in means.items()}
    for each, metric in run.metrics.items():
        state.metrics |= {f"{name}/{key}": value for key, value in _computed(run, each, metric).items()}
    state.metrics |= shared_means(run, state.means)
    run.emit("validation_end")
    state.metrics |= shared_means(run, state.means)  # includes values that were logged during validation_end
    return True


def _until_all_are_done(run: LiveRun, batches: Iterator[Batch]) -> Iterator[Batch | None]:
    """Yield the batches of this process, then None until all processes are done; requests are agreed on meanwhile."""
    exchange = run.state.context.exchange
    if exchange.world == 1:
        yield from batches
        return
    waiting = next(batches, None)
    if run.state.evaluated_step < 0:  # in the run's first evaluation
        check_divided(exchange, [] if waiting is None else [waiting])
    while exchange.largest([waiting is not None])[0]:
        agree(run.state)
        yield waiting
        if waiting is not None:
            waiting = next(batches, None)


class _Totals:
    """The losses over a split.

    Args:
        exchange: What the processes exchange.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._names: tuple[str, ...] = ()
        self._rows: list[torch.Tensor] = []
        self._items: list[int] = []

    def add(self, values: Mapping[str, torch.Tensor], items: int) -> None:
        """Add the means over the items of a batch, without reading them from the device."""
        self._names = tuple(values)
        self._rows.append(torch.stack([each.double() for each in values.values()]))
        self._items.append(items)

    def means(self) -> dict[str, float]:
        """Return the means over all items of all processes, added up in an order that does not depend on these."""
        own = (self._names, torch.stack(self._rows).cpu().tolist() if self._rows else [], self._items)
        gathered = self._exchange.gather(own)
        names = next((names for names, *_ in gathered if names), ())
        rows = [(row, items) for _, rows, sizes in gathered for row, items in zip(rows, sizes, strict=True)]
        all_items = sum(items for _, items in rows)
        return {
            name: sum((row[place] * items for row, items in rows), start=0.0) / all_items
            for place, name in enumerate(names)
        }


def _computed(run: LiveRun, name: str, metric: LiveMetric) -> dict[str, float]:
    """Return a metric's values as floats.

    Raises:
        PartError: The metric fails, or does not return a dict of numbers with the names that it states.
    """
    exchange = run.state.context.exchange
    try:
        if exchange.num_parts > 1:  # a run of several parts was refused if it has a metric without these methods
            metric.merge(exchange.gather(metric.share()))  # type: ignore[attr-defined]
        found = metric.compute()
    except Exception as error:
        blame(error, f"metrics.{name}, in compute")
    if not isinstance(found, dict):
        raise PartError(f"metrics.{name}, in compute, must return a dict of name -> number; it returned {found!r}")
    values: dict[str, float] = {}
    for key, value in found.items():
        scalar = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if not isinstance(scalar, Real):
            raise PartError(f'metrics.{name} must return numbers; its "{key}" is {value!r}')
        values[str(key)] = float(scalar)
    _check_names(name, run.recipe.metrics[name], values)
    return values


def _check_names(name: str, settings: Metric, values: Mapping[str, float]) -> None:
    """Check that a metric returns the values that it states, because `check` relies on these names.

    Raises:
        PartError: The metric returns another value, or does not return one of them.
    """
    stated = settings.names()
    if stated is None:
        return
    other = [key for key in values if not any(fnmatchcase(key, each) for each in stated)]
    missing = [key for key in stated if "*" not in key and key not in values and not settings.may_be_missing]
    if other or missing:
        raise PartError(
            f"metrics.{name} must return the values that its names() state, {', '.join(stated)}; "
            f"it returned {', '.join(values) or 'nothing'}"
        )
