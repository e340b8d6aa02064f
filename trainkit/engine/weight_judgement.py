"""Chooses a weight by what branches reached with it, and says how sure the choice is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

import attrs

from trainkit.engine.golden_section import best_of, is_at_end
from trainkit.errors import TrainkitError

FEW_ITEMS = 30
"""With fewer held-out items, the standard error of a difference is itself uncertain."""

_ERRORS = 2.0  # a difference of fewer standard errors is no difference


@attrs.frozen
class Tried:
    """What a branch reached.

    Attributes:
        value: The deciding value at its end; None: it did not end with a finite one.
        items: The loss of each held-out item at its end; none, if it is not known.
        course: The deciding value after each epoch of the branch that has one: finished epochs -> value.
        folder: Its run folder; None: there is none.
    """

    value: float | None
    items: tuple[float, ...] = ()
    course: Mapping[int, float] = attrs.Factory(dict)
    folder: Path | None = None


@attrs.frozen
class Facts:
    """What a search is judged by.

    Attributes:
        name: The loss.
        metric: The deciding value.
        mode: Whether it should be small ("min") or large ("max").
        epochs: Number of epochs of a branch.
    """

    name: str
    metric: str
    mode: str
    epochs: int


@attrs.frozen
class Judgement:
    """What a search found.

    Attributes:
        weight: The weight that is used.
        lines: What is said about it.
        record: The same for programs.
        doubts: What makes the choice doubtful.
    """

    weight: float
    lines: tuple[str, ...]
    record: Mapping[str, Any]
    doubts: tuple[str, ...]


class _Difference:
    """By how much a branch is worse than the best one, and the standard error of that; None: it is not known."""

    def __init__(self, tried: Tried, best: Tried, sign: float) -> None:
        assert tried.value is not None
        assert best.value is not None
        self.mean = sign * (tried.value - best.value)
        each = [sign * (mine - its) for mine, its in zip(tried.items, best.items, strict=False)]
        self.error = stdev(each) / math.sqrt(len(each)) if len(each) > 1 and len(each) == len(best.items) else None

    @property
    def is_none(self) -> bool:
        """Whether the branch is as good as the best one, as far as held-out items can tell."""
        return self.mean <= _ERRORS * (self.error or 0.0)


def judge(tried: Mapping[float, Tried], facts: Facts) -> Judgement:
    """Choose a weight, and say how sure the choice is.

    Args:
        tried: Weight -> what its branch reached, in the order of the search.
        facts: What the search is judged by.

    Raises:
        TrainkitError: No branch ended with a finite value.
    """
    sign = 1.0 if facts.mode == "min" else -1.0
    known = {weight: math.inf if each.value is None else sign * each.value for weight, each in tried.items()}
    if not any(map(math.isfinite, known.values())):
        raise TrainkitError(f"losses.{facts.name}.weight: no branch ended with a finite {facts.metric}")
    best = best_of(known)
    differences = {
        weight: _Difference(tried[weight], tried[best], sign)
        for weight in sorted(known)
        if math.isfinite(known[weight])
    }
    alike = _around(best, list(differences), lambda weight: differences[weight].is_none)
    doubts = tuple(_doubts(tried, known, best, alike, facts))
    head = f"losses.{facts.name}.weight = {best:g}, chosen by {facts.metric}"
    lines = ["", *_table(tried, differences, facts), f"{head}: {_flatness(best, alike, differences, tried)}"]
    record = {
        "chosen": best,
        "metric": facts.metric,
        "mode": facts.mode,
        "equal_within_scatter": [alike[0], alike[-1]],
        "tried": [
            {
                "weight": weight,
                "value": each.value,
                "standard_error_of_difference": differences[weight].error if weight in differences else None,
                "run": None if each.folder is None else str(each.folder),
            }
            for weight, each in tried.items()
        ],
        "doubts": list(doubts),
    }
    return Judgement(best, tuple(lines), record, doubts)


def _around(best: float, ordered: list[float], is_alike: Callable[[float], bool]) -> list[float]:
    """Return the weights around the best one, without a gap, that are as good."""
    first = last = ordered.index(best)
    while first > 0 and is_alike(ordered[first - 1]):
        first -= 1
    while last < len(ordered) - 1 and is_alike(ordered[last + 1]):
        last += 1
    return ordered[first : last + 1]


def _table(tried: Mapping[float, Tried], differences: Mapping[float, _Difference], facts: Facts) -> Iterator[str]:
    width = max(10, len(facts.metric))
    yield f"{'weight':>10}  {facts.metric:>{width}}  worse than the best by"
    for weight in sorted(tried):
        if weight not in differences:
            yield f"{weight:>10g}  {'-':>{width}}"
            continue
        by = differences[weight]
        error = "" if by.error is None else f" ± {by.error:.2g}"
        yield f"{weight:>10g}  {tried[weight].value:>{width}.6g}  {by.mean:.3g}{error if by.mean else ''}"


def _flatness(
    best: float, alike: list[float], differences: Mapping[float, _Difference], tried: Mapping[float, Tried]
) -> str:
    number = len(tried[best].items)
    if number < 2:
        return "how far held-out items scatter is not known, so neither is how sure this is"
    scatter = f"within the scatter of {number} held-out items"
    if best == 0:
        others = f", though weights up to {alike[-1]:g} are equal {scatter}" if len(alike) > 1 else ""
        return f"no weight is better than none{others}"
    if len(alike) == 1:
        return f"every other weight that was tried is worse by more than the scatter of {number} held-out items"
    none = ", so held-out data does not say that any is needed" if alike[0] == 0 else ""
    return f"weights from {alike[0]:g} to {alike[-1]:g} are equal {scatter}{none}"


def _doubts(
    tried: Mapping[float, Tried], known: Mapping[float, float], best: float, alike: list[float], facts: Facts
) -> Iterator[str]:
    """Yield why the choice is doubtful, each with what to do."""
    what, setting = f"losses.{facts.name}.weight", "[weight_search]"
    values = {value for value in known.values() if math.isfinite(value)}
    if len(values) == 1 and len(known) > 1:
        yield (
            f"{what} made no difference: {facts.metric} is the same in all branches, to the last digit. What the loss "
            "acts on may not train in them"
        )
        return
    if is_at_end(known):
        low, high = (best / 100, best) if best == min(each for each in known if each) else (best, 100 * best)
        yield (
            f"{what} = {best:g} is at the end of all that were tried; the best may lie beyond. Search there: {setting} "
            f"between = [{low:.3g}, {high:.3g}]"
        )
    number = len(tried[best].items)
    if 1 < number < FEW_ITEMS:
        yield f"{what} was chosen by {number} held-out items; hold out {FEW_ITEMS} or more"
    if (moved := _half_way(tried, facts)) is not None and moved not in alike and math.isfinite(known[moved]):
        yield (
            f"the best {what} was {moved:g} in the middle of the branches, and {best:g} at their end, so it may move "
            f"on: make them longer, {setting} epochs = {2 * facts.epochs}"
        )


def _half_way(tried: Mapping[float, Tried], facts: Facts) -> float | None:
    """Return which weight was the best in the middle of the branches; None: there were no values there."""
    sign = 1.0 if facts.mode == "min" else -1.0
    common = set.intersection(*(set(each.course) for each in tried.values() if each.value is not None))
    if len(common) < 3:
        return None
    middle = sorted(common)[(len(common) - 1) // 2]
    return min((each for each in tried if tried[each].value is not None), key=lambda w: sign * tried[w].course[middle])
