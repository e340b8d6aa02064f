"""Lets all processes of a run do the same: they agree on requests, and share values that each has a part of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any

import attrs
import torch
import xxhash

from trainkit.errors import DataError, ProcessError
from trainkit.state import EpochMean
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.contracts import Batch
    from trainkit.engine.live_run import LiveRun
    from trainkit.processes.exchange import Exchange
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_NOTHING: Mapping[str, Any] = {"values": [], "sum": 0.0, "count": 0, "must_be_finite": False}


def agree(state: State) -> None:
    """Let what any process asked for hold on all of them, such as a stop, an interruption or a checkpoint."""
    exchange = state.context.exchange
    if exchange.world == 1 or not exchange.largest([len(state.requests)])[0]:
        return
    own = dict(state.requests)
    asked = exchange.gather(own)
    for what in own:  # a signal may have added another one meanwhile
        del state.requests[what]
    for what in dict.fromkeys(what for each in asked for what in each):
        state.grant(what, next(each[what] for each in asked if what in each))


def shared_means(run: LiveRun, means: Mapping[str, EpochMean]) -> dict[str, float]:
    """Return the mean of each value that was logged, over what all processes logged.

    Doubts of all processes become those of each.
    """
    state = run.state
    exchange = state.context.exchange
    if exchange.world == 1:
        return {name: mean.mean() for name, mean in means.items()}
    for mean in means.values():
        mean.fold()
    own = {name: (mean.sum, mean.count) for name, mean in means.items()}
    gathered = exchange.gather((own, state.doubts))
    for _, doubts in gathered:
        for doubt in doubts:
            state.doubt(doubt)
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for each, _ in gathered for name in each):
        parts = [each[name] for each, _ in gathered if name in each]
        count = sum(count for _, count in parts)
        found[name] = fsum(total for total, _ in parts) / count if count else float("nan")
    return found


def metrics_of_first(run: LiveRun) -> dict[str, float]:
    """Return the metrics of the first process, by which all go on; say once which of them other processes do not share.

    A part that writes to ``state.metrics`` what it saw of its own share of the data knows that of no other process.
    """
    state = run.state
    first, *others = state.context.exchange.gather(state.metrics)
    of_share = [
        name
        for name, value in first.items()
        if name not in run.of_first_share
        and any(name in each and repr(each[name]) != repr(value) for each in others)  # NaN is like NaN
    ]
    if of_share:
        run.of_first_share.update(of_share)
        _LOGGER.warning(
            "%s: this value is of the first process's share of the data alone, and others have another one; a part "
            "that calls state.log before the end of the epoch logs the mean over all",
            some_of(of_share),
        )
    return first


def running_means(state: State) -> dict[str, Any]:
    """Return the means that are still being computed, as a checkpoint holds them.

    What is the same in all processes, such as the loss, is saved once. Of what differs, because each process logged a
    value of its own share of the data, each process's mean is saved.
    """
    exchange = state.context.exchange
    running = {name: attrs.asdict(mean, recurse=False) for name, mean in state.means.items()}
    if exchange.world == 1:
        return {"running": running}
    on_cpu = {name: mean | {"values": [value.cpu() for value in mean["values"]]} for name, mean in running.items()}
    gathered = exchange.gather(on_cpu)
    names = dict.fromkeys(name for each in gathered for name in each)
    own = {name: [each.get(name, _NOTHING) for each in gathered] for name in names}
    own = {name: means for name, means in own.items() if not all(_is_same(means[0], each) for each in means)}
    if not own:
        return {"running": running}
    return {"running": {name: each for name, each in running.items() if name not in own}, "running_of_each": own}


def restore_means(state: State, saved: Mapping[str, Any]) -> None:
    """Restore what `running_means` returned, also that of another number of processes."""
    exchange, device = state.context.exchange, state.context.device
    running = dict(saved["running"])
    for name, of_each in saved.get("running_of_each", {}).items():
        if len(of_each) == exchange.world:
            running[name] = of_each[exchange.rank]
        elif exchange.rank == 0:
            running[name] = {
                "values": [value for each in of_each for value in each["values"]],
                "sum": fsum(each["sum"] for each in of_each),
                "count": sum(each["count"] for each in of_each),
                "must_be_finite": any(each["must_be_finite"] for each in of_each),
            }
    state.means = {
        name: EpochMean(**mean | {"values": [value.to(device) for value in mean["values"]]})
        for name, mean in running.items()
    }


def check_replicas(run: LiveRun) -> None:
    """Make sure that all processes have the same model.

    Raises:
        ProcessError: They do not; the message names a parameter or buffer.
    """
    exchange, model = run.state.context.exchange, run.state.model
    if exchange.world == 1:
        return
    digests = {name: _digest(value) for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    for rank, other in enumerate(exchange.gather(digests)):
        if wrong := [name for name, digest in other.items() if digests.get(name) != digest]:
            raise ProcessError(
                f"process {rank} has another model than process {exchange.rank} after step {run.state.step}: "
                f"{wrong[0]} differs. A part changes it by what it saw of its own share of the data; it must do the "
                "same in every process"
            )


def check_divided(exchange: Exchange, batches: Sequence[Batch]) -> None:
    """Make sure that no two processes have the same batches, as if the data were not divided among them.

    Args:
        exchange: What the processes exchange.
        batches: Those of a step, or the first of an evaluation, on this process; it may have none.

    Raises:
        DataError: Two have the same.
    """
    if exchange.world == 1:
        return
    own = [
        [_digest(value) for _, value in sorted(batch.items()) if isinstance(value, torch.Tensor)] for batch in batches
    ]
    seen: dict[str, int] = {}
    for rank, each in enumerate(map(repr, exchange.gather(own))):
        if each == repr([]):
            continue
        if (other := seen.setdefault(each, rank)) != rank:
            raise DataError(
                f"processes {other} and {rank} were given the same batches; data that divide batches "
                "(divides_batches) must yield the parts in context.exchange.parts alone"
            )


def _digest(tensor: torch.Tensor) -> int:
    whole = tensor.detach().cpu().contiguous()
    numbers = whole.as_strided((whole.numel(),), (1,))  # one number alone may have any stride
    return xxhash.xxh3_64_intdigest(bytes(numbers.view(torch.uint8).numpy()))


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if (one["sum"], one["count"], len(one["values"])) != (other["sum"], other["count"], len(other["values"])):
        return False
    return all(torch.equal(mine, its) for mine, its in zip(one["values"], other["values"], strict=True))
