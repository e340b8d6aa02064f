"""Compares runs: their settings, versions, machines and data, their values, and whether they may be ranked by these."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from trainkit.contracts import Monitor
from trainkit.engine.fingerprint import other_data
from trainkit.errors import RecipeError
from trainkit.runs.divergence import (
    CheckpointDivergence,
    ValueDivergence,
    checkpoint_divergence,
    value_divergence,
)
from trainkit.runs.meaning import blocks, data_of, why_another_meaning
from trainkit.runs.origins import origins
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import NOT_SET, differing, same
from trainkit.runs.values import Value

_TARGET = re.compile(r"\s*(.+?)\s*(<=|>=|=)\s*(.+?)\s*")


@attrs.frozen
class Target:
    """A value that runs should reach.

    Attributes:
        name: Its full name, for example "val/dice".
        value: The number.
        is_rising: Whether it is reached from below.
    """

    name: str
    value: float
    is_rising: bool

    def is_reached(self, value: float) -> bool:
        """Return whether a value is at least as good."""
        return value >= self.value if self.is_rising else value <= self.value

    def __str__(self) -> str:
        """Return it as a condition."""
        return f"{self.name} {'>=' if self.is_rising else '<='} {self.value:.5g}"


def read_target(text: str, monitors: Sequence[Monitor]) -> Target:
    """Return the target that a text describes.

    Args:
        text: NAME=VALUE, NAME>=VALUE or NAME<=VALUE.
        monitors: What the runs monitor, which says in which direction a value improves.

    Raises:
        RecipeError: It describes none, or not in which direction the value improves.
    """
    found = _TARGET.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        name, relation, value = found[1], found[2], float(found[3])
    except ValueError:
        raise RecipeError(f"--to '{text}': write, for example, 'val/dice>=0.8'") from None
    modes = {each.mode for each in monitors if each.metric == name}
    if relation == "=" and len(modes) != 1:
        raise RecipeError(
            f"--to '{text}': {name} is not what the runs monitor, so write '{name}>={found[3]}' or '{name}<={found[3]}'"
        )
    return Target(name, value, relation == ">=" if relation != "=" else modes == {"max"})


@attrs.frozen
class Setting:
    """A setting that is not equal in all runs.

    Attributes:
        key: Its dotted key.
        values: Its value in each run; `NOT_SET`: the run has none.
        origins: Where each value comes from.
    """

    key: str
    values: Sequence[Any]
    origins: Sequence[str]


@attrs.define
class Comparison:
    """What two or more runs have in common, and what not.

    Attributes:
        runs: The runs.
        blocks: The runs in groups within which the monitored values mean the same, and why a group is not ranked with
            the first one.
        settings: The settings that differ.
        conditions: Name -> value in each run, of versions, machine and device, where they differ.
        data: For each further run, what differs in the data from those of the first one: a sentence each.
        cautions: What to keep in mind when runs are ranked: a sentence each.
        divergences: For each further run, where its numbers begin to differ from those of the first one.
        target: The value whose time is compared; None: there is none.
        reached: Where each run reached it; None: it did not.
        target_differs: Why the target does not mean the same in all runs.
    """

    runs: Sequence[RunRecord]
    blocks: Sequence[tuple[list[RunRecord], list[str]]]
    settings: Sequence[Setting]
    conditions: Mapping[str, Sequence[Any]]
    data: Sequence[Sequence[str]]
    cautions: Sequence[str]
    divergences: Sequence[tuple[ValueDivergence, CheckpointDivergence]]
    target: Target | None
    reached: Sequence[Value | None]
    target_differs: Sequence[str]

    @property
    def is_ranked(self) -> bool:
        """Whether the monitored values of all runs mean the same."""
        return len(self.blocks) == 1

    def ranked(self, members: Sequence[RunRecord]) -> list[RunRecord]:
        """Return runs of a group by their best values, the best first; those without one are left out."""
        having = [run for run in members if run.best is not None]
        falling = any(run.monitor is not None and run.monitor.mode == "max" for run in having)
        return sorted(having, key=lambda run: 0.0 if run.best is None else run.best.value, reverse=falling)


def compare(runs: Sequence[RunRecord], to: str | None = None) -> Comparison:
    """Compare runs.

    Args:
        runs: Two or more runs.
        to: The value whose time is compared, for example "val/dice>=0.8"; None: the worst of the best monitored values.

    Raises:
        RecipeError: ``to`` is no value, or no run has it.
    """
    found = blocks(runs)
    target = _target(runs, to, is_ranked=len(found) == 1)
    differs = [] if target is None else _each(runs, lambda one, other: why_another_meaning(one, other, target.name))
    known = [origins(run) for run in runs]
    keys = differing([run.settings for run in runs], leave_out=())
    return Comparison(
        runs=runs,
        blocks=found,
        settings=[
            Setting(
                key,
                [run.settings.get(key, NOT_SET) for run in runs],
                [each.get(key, "") for each in known],
            )
            for key in keys
        ],
        conditions=dict(_conditions(runs)),
        data=[_data(runs[0], other) for other in runs[1:]],
        cautions=[*_cautions(runs)],
        divergences=[(value_divergence(runs[0], other), checkpoint_divergence(runs[0], other)) for other in runs[1:]],
        target=target,
        reached=[None if target is None else run.values.first(target.name, target.is_reached) for run in runs],
        target_differs=differs,
    )


def _each(runs: Sequence[RunRecord], reasons: Callable[[RunRecord, RunRecord], Sequence[str]]) -> list[str]:
    found = (reason for other in runs[1:] for reason in reasons(runs[0], other))
    return list(dict.fromkeys(found))


def _target(runs: Sequence[RunRecord], to: str | None, *, is_ranked: bool) -> Target | None:
    monitors = [run.monitor for run in runs if run.monitor is not None]
    if to is not None:
        target = read_target(to, monitors)
        if all(run.values.last(target.name) is None for run in runs):
            known = dict.fromkeys(name for run in runs for name in run.values.names)
            raise RecipeError(f'--to: no run has a value "{target.name}"; they have {", ".join(known) or "none"}')
        return target
    best = [run.best.value for run in runs if run.best is not None]
    if not is_ranked or len(best) != len(runs):
        return None
    is_rising = monitors[0].mode == "max"
    return Target(monitors[0].metric, min(best) if is_rising else max(best), is_rising)


def _data(one: RunRecord, other: RunRecord) -> list[str]:
    known, more = data_of(one), data_of(other)
    if known is None or more is None:
        run = one if known is None else other
        return [f"of {run.folder}, it is not recorded with which data it ran"]
    lines = [each.removeprefix("warning: ") for each in other_data(known["fingerprint"], more["fingerprint"])]
    if known.get("facts") != more.get("facts"):
        lines.append("its facts (sizes, units, channels) differ")
    return [each.replace("the data has changed: ", "").replace(", was ", " and ") for each in lines]


def _conditions(runs: Sequence[RunRecord]) -> Iterator[tuple[str, list[Any]]]:
    """Yield versions, machine and device of the last start of each run, where they differ."""
    known = [conditions_of(run) for run in runs]
    for name in dict.fromkeys(name for each in known for name in each):
        values = [each.get(name, "unknown") for each in known]
        if any(not same(value, values[0]) for value in values):
            yield name, values


def conditions_of(run: RunRecord) -> dict[str, Any]:
    """Return versions, machine and device of the last start of a run, as far as they are recorded."""
    start = run.starts[-1] if run.starts else {}
    found: dict[str, Any] = {}
    for key in ("host", "platform", "device", "threads"):
        if key in start:
            found[key] = start[key]
    for key in ("versions", "computes_on"):
        if isinstance(start.get(key), Mapping):
            found |= start[key]
    for used in start.get("components") or ():
        if isinstance(used, Mapping) and used.get("package"):
            found[str(used["package"])] = used.get("version")
    return found


def _cautions(runs: Sequence[RunRecord]) -> Iterator[str]:
    for run in runs:
        if run.state.name == "running":
            yield f"{run.id} is still running"
        elif run.state.name != "finished":
            why = f" ({run.state.why.splitlines()[0]})" if run.state.why else ""
            yield f"{run.id}: {run.state.name}{why}"
        if run.values.num_damaged:
            yield f"{run.id}: {run.values.num_damaged} lines of its values cannot be read"
    lengths = {run.values.epochs for run in runs}
    if len(lengths) > 1:
        yield f"they have trained for different lengths: {', '.join(map(str, sorted(lengths)))} epochs"
    monitors = {run.monitor for run in runs if run.monitor is not None}
    if len(monitors) == 1:
        (monitor,) = monitors
        numbers = [sum(1 for _ in run.values.of(monitor.metric)) for run in runs]
        if len(set(numbers)) > 1:
            yield (
                f"{monitor.metric} was computed {', '.join(map(str, numbers))} times: the best of more values is "
                "better by chance"
            )
    conditions = [conditions_of(run) for run in runs]
    for name in ("host", "device", "GPU", "threads"):
        if len({repr(each.get(name)) for each in conditions}) > 1:
            yield f"their times are not comparable: {name} differs"
            break
    for run in runs:
        if run.disturbance:
            yield f"the time of {run.id} is too long: {run.disturbance}"
    if len({repr(each.get("trainkit")) for each in conditions}) > 1:
        yield "other versions of trainkit computed the values"
    apart_from_seed = [differing([one.settings, other.settings]) for one in runs for other in runs if one is not other]
    if all(keys != ["run.seed"] for keys in apart_from_seed):
        yield "no two of them differ in run.seed alone, so how much a value scatters by chance is not known"
