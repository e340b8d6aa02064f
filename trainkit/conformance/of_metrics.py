"""Checks of what a metric builds."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from trainkit.conformance.randomness import untouched_randomness
from trainkit.conformance.trial import Trial, parts_of_batch
from trainkit.contracts import Metric

_Seen = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def computes_numbers_and_forgets(metric: Metric, trial: Trial) -> None:
    """Check that ``compute`` returns floats under the stated names, and begins anew."""
    live, seen = metric.build(trial.live_data()), trial.held_out()
    with untouched_randomness(type(live).__name__, "compute it of outputs and batch alone"):
        values = _values(live, seen)
    assert isinstance(values, dict), f"compute returns {type(values).__name__}, not a dict of name -> float"
    for name, value in values.items():
        assert isinstance(value, float | int), f'compute returns {type(value).__name__} for "{name}", not a float'
    stated = metric.names()
    if stated is not None:
        other = [name for name in values if not any(fnmatchcase(name, each) for each in stated)]
        assert not other, f"compute returns {other}, which names() does not state: {stated}"
        missing = [each for each in stated if "*" not in each and each not in values and not metric.may_be_missing]
        assert not missing, f"names() states {missing}, which compute does not return; it returns {sorted(values)}"
    again = _values(live, seen)
    differs = _first_difference(values, again)
    assert differs is None, (
        f'compute does not begin anew: "{differs}" is {values.get(differs)}, then {again.get(differs)}'
    )


def does_not_depend_on_how_items_are_batched(metric: Metric, trial: Trial) -> None:
    """Check that a split has the same values when its batches are of other, unequal sizes."""
    seen = trial.held_out()
    divided = []
    for batch, outputs in seen:
        items = len(batch["index"])
        sizes = (1, items - 1) if items > 1 else (1,)
        divided += list(zip(parts_of_batch(batch, sizes), parts_of_batch(outputs, sizes), strict=True))
    if len(divided) == len(seen):
        return
    live = metric.build(trial.live_data())
    whole, parts = _values(live, seen), _values(live, divided)
    name = _first_difference(whole, parts, 1e-4)
    assert name is None, (
        f'"{name}" is {whole.get(name)}, and {parts.get(name)} when the same items come in other batches; add up '
        "over items, not means over batches"
    )


def combines_what_processes_saw(metric: Metric, trial: Trial) -> None:
    """Check that ``share`` and ``merge``, if it has them, give the values of one process that saw everything."""
    data = trial.live_data()
    whole = metric.build(data)
    has = [name for name in ("share", "merge") if hasattr(whole, name)]
    if not has:
        return
    assert len(has) == 2, f"{type(whole).__name__} has {has[0]}, but not {'merge' if has == ['share'] else 'share'}"
    seen = list(trial.held_out())
    if len(seen) < 2:
        (batch, outputs), items = seen[0], len(seen[0][0]["index"])
        if items > 1:
            sizes = (1, items - 1)
            seen = list(zip(parts_of_batch(batch, sizes), parts_of_batch(outputs, sizes), strict=True))
    expected = _values(whole, seen)
    one, other = metric.build(data), metric.build(data)
    shares = []
    for live, part in ((one, seen[:1]), (other, seen[1:])):
        for batch, outputs in part:
            live.update(outputs, batch)
        shares.append(_sent(live.share()))  # type: ignore[attr-defined]
    one.merge(shares)  # type: ignore[attr-defined]
    found = one.compute()
    name = _first_difference(expected, found, 1e-6)
    assert name is None, (
        f'"{name}" is {expected.get(name)} where one process sees everything, and {found.get(name)} where two share it'
    )


def _sent(share: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(share))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise AssertionError(f"share returns what cannot be sent to another process: {error}") from error


def _values(live: Any, seen: _Seen) -> dict[str, Any]:
    with torch.no_grad():
        for batch, outputs in seen:
            live.update(outputs, batch)
        values: dict[str, Any] = live.compute()
    return values


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 0.0) -> str | None:
    for name in dict.fromkeys([*one, *other]):
        if name not in one or name not in other:
            return name
        mine, its = float(one[name]), float(other[name])
        if not (
            math.isclose(mine, its, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(mine) and math.isnan(its))
        ):
            return name
    return None
