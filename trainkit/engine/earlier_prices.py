"""Prices that earlier runs of the same recipe recorded, and earlier starts of the same run.

They are part of the record of each start in ``environment.json``. A run uses those of the runs beside it, and of its
own folder, if all that decides about them is the same: machine, device, threads, data, model, and whatever else is
computed in each step. Lengths, seeds, learning rates, schedules and the epochs at which groups start may differ.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from xxhash import xxh3_128_hexdigest

from trainkit.engine.identity import newest_first
from trainkit.engine.prices import Prices
from trainkit.engine.run_folder import starts

if TYPE_CHECKING:
    from trainkit.engine.live_run import LiveRun

RECORD = "prices"
"""Key of the prices in the record of a start."""

_MOST_RUNS = 20  # that are looked at, the newest first

_COMPUTED = ("data", "model", "losses", "metrics", "inference", "optimizer", "ema", "hooks", "loggers")
_OF_THE_LENGTH = ("epochs", "steps", "seed", "name", "dir", "time_limit", "patience", "most_steps_per_epoch")
_OF_A_PLAN = ("lr", "lr_factor", "start_epoch", "stop_epoch", "scheduler")


def of_earlier_runs(run: LiveRun) -> Prices:
    """Return what earlier starts recorded that computed the same on the same machine; of several, the newest."""
    own = run.state.folder
    others = (each for each in newest_first(own.parent.glob("*")) if each.name != own.name)
    records = (start for folder in (own, *islice(others, _MOST_RUNS)) for start in reversed(starts(folder)))
    wanted, found = _computes(run), Prices()
    for record in records:
        prices = record.get(RECORD)
        if isinstance(prices, Mapping) and prices.get("of") == wanted:
            found = _completed(found, _read(prices))
    return found


def record(run: LiveRun, prices: Prices) -> dict[str, Any]:
    """Return what a start records of its prices, as JSON values."""
    return {"of": _computes(run), **attrs.asdict(prices)}


def _computes(run: LiveRun) -> str:
    """Return a digest of all that decides about the prices of a run: what it computes, with what, and where."""
    tree, state = run.resolved.tree, run.state
    groups = {name: _without_plan(group) for name, group in tree.get("groups", {}).items()}
    decides = {
        **{table: tree.get(table) for table in _COMPUTED},
        "optimizer": _without_plan(tree["optimizer"]),
        "groups": {name: group for name, group in groups.items() if group},
        "run": {key: value for key, value in tree["run"].items() if key not in _OF_THE_LENGTH},
        "fingerprint": dict(run.fingerprint),
        "conditions": run.conditions,
        "host": platform.node(),
        "processes": state.context.world,
        "is_trial": state.is_trial,
    }
    return xxh3_128_hexdigest(json.dumps(decides, sort_keys=True, default=str).encode())


def _without_plan(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of an optimizer, a group or a phase without those that change no price."""
    kept = {key: value for key, value in settings.items() if key not in _OF_A_PLAN}
    if "then" in kept:
        kept["then"] = {name: _without_plan(phase) for name, phase in kept["then"].items()}
    return kept


def _completed(known: Prices, other: Prices) -> Prices:
    """Return prices with those of another record where they lack some."""
    return Prices(
        {**other.steps, **known.steps},
        {**other.validation, **known.validation},
        *(
            getattr(other if getattr(known, what) is None else known, what)
            for what in ("pictures", "checkpoint", "ending")
        ),
    )


def _read(saved: Mapping[str, Any]) -> Prices:
    """Return recorded prices without what is no number of seconds: anybody may have changed the file."""

    def seconds(value: object) -> float | None:
        return float(value) if type(value) in (int, float) and 0 <= value < 1e9 else None  # type: ignore[operator, arg-type]

    def each(values: object) -> dict[str, float]:
        pairs: Iterable[tuple[Any, Any]] = values.items() if isinstance(values, Mapping) else ()
        return {str(key): number for key, value in pairs if (number := seconds(value)) is not None}

    one = (seconds(saved.get(what)) for what in ("pictures", "checkpoint", "ending"))
    return Prices(each(saved.get("steps")), each(saved.get("validation")), *one)
