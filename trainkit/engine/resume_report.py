"""Tells, before a resumed run continues, what is not as it was: settings, data, versions, the machine, groups."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tomli

from trainkit.engine.changes import flat
from trainkit.engine.environment import PROCESSES
from trainkit.engine.resumed_groups import name_then, point_of
from trainkit.groups.resuming import rates_per_epoch
from trainkit.recipe.origin import dotted
from trainkit.words import after_epochs

if TYPE_CHECKING:
    from trainkit.engine.changes import SettingChange
    from trainkit.engine.live_run import LiveRun
    from trainkit.groups.resuming import ResumedGroup, ResumePoint, SavedGroup


def run_changes(
    saved: Mapping[str, Any], run: LiveRun, changes: Sequence[SettingChange], news_of_data: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each setting, version, fact of the data and condition that has changed."""
    yield from map(str, changes)
    yield from news_of_data
    packages = {(used["where"], _plain_name(used["use"])): used for used in saved["components"]}
    for part in run.resolved.used:
        was = packages.get((part.where, _plain_name(part.use)))
        if was is not None and was["package"] != part.package:
            yield f"warning: {part.where}: {part.use} is from {part.package} {part.version}, was from {was['package']}"
    before = {used["package"]: used["version"] for used in saved["components"]}
    now = {used.package: used.version for used in run.resolved.used}
    before |= ({} if _has_shards(saved["recipe"]) else {PROCESSES: 1}) | saved["conditions"]
    now |= run.conditions
    for name, value in before.items():
        if name in now and now[name] != value:
            yield f"warning: {name} is {now[name]}, was {value}: the run may not be the same bit for bit"


def _has_shards(recipe: str) -> bool:
    return bool(tomli.loads(recipe).get("run", {}).get("shards"))


def _plain_name(use: str) -> str:
    return use if ":" in use else use.rpartition("/")[2]


def other_facts(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a line for each fact of the data that differs."""
    if before is None or now is None:
        return  # the checkpoint is older than facts, or the data has none
    was, here = dict(flat(before)), dict(flat(json.loads(json.dumps(now))))
    for key in sorted(was.keys() | here.keys()):
        if was.get(key) != here.get(key) and key[0] != "inputs":  # these do not concern the training
            yield f"warning: the data has changed: its {dotted(key)} is {here.get(key)}, was {was.get(key)}"


def group_changes(
    run: LiveRun,
    saved: Mapping[str, Any],
    old: Mapping[str, SavedGroup | None],
    groups: Mapping[str, ResumedGroup],
) -> Iterator[str]:
    """Yield a line for each change of a parameter group.

    Args:
        run: The restored run.
        saved: The checkpoint.
        old: Each group as it was saved in the checkpoint.
        groups: Each group as it continues.
    """
    point = point_of(run, saved)
    kept = set()
    for name, resumed in groups.items():
        then = name_then(name, run, saved)
        kept.add(then)
        if then is None:
            yield f"group {name}: new"
        elif then != name:
            yield f"group {name}: was called {then}"
        yield from _rate_changes(name, old[name], resumed, point)
    for name in saved["groups"]:
        if name not in kept:
            yield f"group {name}: no longer exists"


def _rate_changes(name: str, old: SavedGroup | None, resumed: ResumedGroup, point: ResumePoint) -> Iterator[str]:
    phase = resumed.plan.phase_at(point.epoch)
    now = rates_per_epoch(resumed, point)[0] if point.epoch in phase.epochs else 0.0
    if old is None:
        if phase.epochs.start == point.epoch:
            yield f"group {name}: starts now, lr {now:.6g}"
        return
    if phase.name != old.phase.name:
        yield f"group {name}: phase {phase.name} starts now, lr {now:.6g}"
        return
    trains = point.epoch in old.phase.epochs or point.epoch in phase.epochs  # the old plan may end before this epoch
    was = old.phase.rate(point.epoch, point.epoch_step, point.steps_per_epoch, old.memory).lr if trains else 0.0
    schedules = [type(each.scheduler).__name__ for each in (old.phase, phase)]
    if not math.isclose(was, now, rel_tol=1e-9) or schedules[0] != schedules[1]:
        change = f", {schedules[0]} -> {schedules[1]}" if schedules[0] != schedules[1] else ""
        yield f"group {name}: lr {after_epochs(point.epoch)}: {was:.6g} -> {now:.6g}{change}"
